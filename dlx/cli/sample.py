"""dlx sample: new data from a trained run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlx.cli.options import DEFAULT_ROOT, Given, Json, Root, Run, Trust, existing_path, pairs, trusted
from dlx.cli.output import print_json, save_medium, say
from dlx.config.errors import LOST, UserError, plain
from dlx.config.groups import nearest
from dlx.config.overrides import convert_text
from dlx.config.signature import read, read_method

if TYPE_CHECKING:
    from dlx.tasks.spec import Spec
    from dlx.tasks.system import System

COUNT = 16  # pictures; of texts, which are read one after another, one


def sample(
    run: Run,
    count: Annotated[
        int | None, typer.Option("-n", "--count", min=1, help="How many; by default 16 pictures or one text.")
    ] = None,
    given: Given = None,
    prompt: Annotated[str | None, typer.Option(help="The same as --given prompt=TEXT.")] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    trust: Trust = None,
    json: Json = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Make new data with a run's best weights: pictures into its media/, texts on the screen, one as it is written."""
    from dlx.runs.find import find_trained

    words = pairs(given, "--given")
    if prompt is not None:
        if "prompt" in words:
            raise UserError("--prompt: --given prompt=... is given as well")
        words["prompt"] = prompt
    folder = find_trained(run, root)
    config = folder.load_config(trust=trusted(trust))

    import torch

    from dlx.random import reseed
    from dlx.training.load import load_system

    system = load_system(folder, config)
    if not system.defines("sample"):
        remedy = "; dlx predict gives its answers" if system.defines("predict") else ""
        raise UserError(f"dlx sample: {type(system).__name__} makes nothing{remedy}")
    arguments = read_given(system, config["model"]["_target_"], words)
    reseed(seed, "sample")
    with torch.no_grad():
        made = system.sample(count or (1 if is_text(system.spec) else COUNT), **arguments)
        media, texts = drawn(system, made, json)
    saved = [save_medium(folder, f"sample-{name}-{seed}", medium, json) for name, medium in media.items()]
    files = [path for path in saved if path is not None]
    if json:
        print_json({"run": str(folder.path), "seed": seed, "pictures": files, "texts": texts})
    raise typer.Exit(0 if len(files) == len(saved) else LOST)


def read_given(system: System, target: str, words: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of `sample` from texts. Raises UserError naming the nearest argument."""
    params = read_method(target, "sample") or {}
    found = {}
    for name, text in words.items():
        if name not in params:
            known = ", ".join(params) or "none"
            raise UserError(f"--given {name}: unknown argument{nearest(name, list(params)) or ';'} it takes {known}")
        kinds = [path for path in params[name].classes if (s := read(path)) and "dlx.tasks.spec.Entry" in s.ancestors]
        if not kinds:
            found[name] = convert_text(f"--given {name}", text, params[name].annotation)
            continue
        entries = {key: type(entry) for key, entry in system.spec.entries.items()}
        alike = [key for key, kind in entries.items() if f"{kind.__module__}.{kind.__qualname__}" in kinds]
        entry = name if name in alike else alike[0] if len(alike) == 1 else None
        if entry is None:
            raise UserError(f"--given {name}: {type(system).__name__} reads no such entry ({', '.join(entries)})")
        path = existing_path(text)
        found[name] = system.spec.entries[entry].read(path if path and path.is_file() else text)
    return found


def is_text(spec: Spec) -> bool:
    """Whether what a system of that spec makes is read: texts, and no pictures."""
    entries = spec.entries.values()
    return any(entry.is_text for entry in entries) and not any(entry.is_picture for entry in entries)


class Stream:
    """Prints a text as it grows. A letter that is not whole yet, and a text that does not go on from what is printed
    already, wait for the end."""

    def __init__(self, json: bool) -> None:
        self.shown, self.json = "", json

    def grow(self, text: str) -> None:
        text = plain(text.rstrip("\ufffd"))
        if text.startswith(self.shown):
            typer.echo(text[len(self.shown) :], nl=False, err=self.json)
            self.shown = text

    def end(self, text: str) -> None:
        text = plain(text)
        is_more = text.startswith(self.shown)
        typer.echo(text[len(self.shown) :] if is_more else f"\n{text}", err=self.json)


def drawn(system: System, made: Any, json: bool) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Media and texts by entry. Of an iterator the last batch is the result: pictures become a film, one text is
    printed as it grows; several are printed at the end, with a line between."""
    import numpy as np

    from dlx.runs.media import Animation, grid

    batches = [made] if isinstance(made, dict) else made
    frames: dict[str, list[Any]] = {}
    texts: dict[str, list[str]] = {}
    streams: dict[str, Stream] = {}
    for batch in batches:
        for name in [name for name in batch if name in system.spec.entries]:
            value = system.spec.entries[name].draw(batch[name])
            if isinstance(value, list):
                texts[name] = value
                if len(value) == 1:
                    streams.setdefault(name, Stream(json)).grow(value[0])
            else:
                frames.setdefault(name, []).append(grid(value))
    for name, written in texts.items():
        if name in streams:
            streams[name].end(written[0])
        else:
            between = "\n----\n" if system.spec.entries[name].is_text else "\n"
            say(between.join(written), json)
    media: dict[str, Any] = {name: found[-1] for name, found in frames.items()}
    for name, found in frames.items():
        if len(found) > 1 and len({frame.shape for frame in found}) == 1:
            media[f"{name}-film"] = Animation(np.stack(found), system.spec.entries[name].frame_seconds)
    return media, texts
