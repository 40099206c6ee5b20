"""Completion in bash, zsh and fish: dlx gets the line up to the cursor and answers with whole words.

Typer answers (in the form it has for fish); its own scripts for bash and zsh cannot complete behind a `=`.
"""

from __future__ import annotations

import os
from pathlib import Path

from dlx.cli.output import say
from dlx.config.errors import UserError

_ASK = "env _DLX_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args"

# bash splits words at = and : as well (COMP_WORDBREAKS), and takes for an answer only what follows the last of them.
_BASH = rf"""
_dlx_completion() {{
    local line="${{COMP_LINE:0:COMP_POINT}}" answer breaks before=
    local word="${{line##*[[:space:]]}}"
    COMPREPLY=()
    breaks="${{COMP_WORDBREAKS//[^=:]/}}"
    if [[ -n $breaks && $word == *["$breaks"]* ]]; then
        before="${{word%"${{word##*["$breaks"]}}"}}"
    fi
    while IFS= read -r answer; do
        answer="${{answer%%$'\t'*}}"
        [[ -n $answer ]] && COMPREPLY+=("${{answer#"$before"}}")
    done < <({_ASK} _TYPER_COMPLETE_ARGS="$line" "$1" 2>/dev/null)
    if [[ ${{#COMPREPLY[@]}} == 1 && ${{COMPREPLY[0]}} == *[=.] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}}

complete -o default -F _dlx_completion dlx
"""

_ZSH = rf"""
#compdef dlx

_dlx_completion() {{
    local -a answers open
    answers=(${{(f)"$({_ASK} _TYPER_COMPLETE_ARGS="${{(j: :)words[1,CURRENT]}}" $words[1] 2>/dev/null)"}})
    answers=(${{answers%%$'\t'*}})
    open=(${{(M)answers:#*[=.]}})
    answers=(${{answers:#*[=.]}})
    if (( $#answers + $#open )); then
        (( $#open )) && compadd -S '' -a open
        (( $#answers )) && compadd -a answers
    else
        compset -P '*='
        _files
    fi
}}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _dlx_completion "$@"
else
    compdef _dlx_completion dlx
fi
"""

_FISH = rf"""
function _dlx_completion
    set -l line (commandline -cp | string collect --allow-empty)
    set -l answers ({_ASK} _TYPER_COMPLETE_ARGS="$line" dlx 2>/dev/null)
    if test -n "$answers[1]"
        printf '%s\n' $answers
    else
        set -l word (commandline -ct)
        set -l before (string match -r '^[^=]*=' -- $word)
        for path in (__fish_complete_path (string replace -- "$before" '' $word))
            echo "$before$path"
        end
    end
end

complete --command dlx --no-files --arguments "(_dlx_completion)"
"""

SCRIPTS = {"bash": _BASH.lstrip(), "zsh": _ZSH.lstrip(), "fish": _FISH.lstrip()}
# The script's file, and what a shell's own file needs so that it is read.
_HOMES = {
    "bash": (".bash_completions/dlx.sh", ".bashrc", "source ~/.bash_completions/dlx.sh"),
    "zsh": (".zfunc/_dlx", ".zshrc", "fpath+=~/.zfunc; autoload -Uz compinit; compinit"),
    "fish": (".config/fish/completions/dlx.fish", None, ""),
}


def complete_shell(option: str, shell: str | None) -> int:
    """Runs --show-completion and --install-completion. Raises UserError for an unknown shell."""
    shell = shell or _this_shell()
    if shell not in SCRIPTS:
        raise UserError(f"{option} {shell or 'SHELL'}: must be one of {', '.join(SCRIPTS)}")
    if option == "--show-completion":
        say(SCRIPTS[shell].rstrip())
        return 0
    file, start_file, line = _HOMES[shell]
    path = Path.home() / file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SCRIPTS[shell])
        if start_file is not None:
            start = Path.home() / start_file
            text = start.read_text() if start.exists() else ""
            if line not in text.splitlines():
                start.write_text(f"{text}{'' if text.endswith(chr(10)) or not text else chr(10)}{line}\n")
    except OSError as error:
        raise UserError(f"{option}: {error.filename} cannot be written ({error.strerror})") from None
    say(f"{'completion':<16}{path}; new {shell} sessions have it")
    return 0


def _this_shell() -> str:
    import shellingham

    try:
        return str(shellingham.detect_shell()[0])
    except shellingham.ShellDetectionFailure:
        return os.path.basename(os.environ.get("SHELL", ""))  # noqa: PTH119
