"""Option files of one's own: what a scalar is, what a file lacks, and how it is named in one line."""

import math
import re

import pytest

from dlx.config import compose
from dlx.config.errors import UserError
from dlx.config.yaml import dump_yaml, line_of, read_frozen, read_yaml

MLP = "# @package _global_\n# Mine.\nmodel:\n  _target_: dlx.models.mlp.MLP\n"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(dlx_call, *arguments):
    call = dlx_call("config", "--conf-dir", "mine", *arguments)
    assert call.code == 2, call.out
    assert "Traceback" not in call.err
    return call.err.splitlines()


@pytest.mark.parametrize("read", [read_yaml, read_frozen])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0), ("12", 12), ("-5", -5), ("+3", 3), ("0x1F", 31), ("0o10", 8), ("1.5", 1.5), (".5", 0.5), ("1.", 1.0),
        ("1e3", 1000.0), ("1e-3", 0.001), ("-.inf", -math.inf), ("true", True), ("False", False), ("~", None),
        ("null", None), ("", None), ("'12'", "12"),
        ("010", "010"), ("00", "00"), ("1:30", "1:30"), ("1:30.5", "1:30.5"), ("1_000", "1_000"), ("0b11", "0b11"),
        ("1_0.5", "1_0.5"), ("yes", "yes"), ("no", "no"), ("on", "on"), ("off", "off"), ("2026-11-24", "2026-11-24"),
        ("٣", "٣"),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text, expected, read, tmp_path):
    found = read(write(tmp_path / "a.yaml", f"a: {text}\n"))["a"]
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("text", ["010", "1:30", "1_000", "0x1F", "0o10", "yes", "on", "2026-11-24", "1e3", "~", "<<"])
def test_text_that_looks_like_something_else_is_written_so_that_all_readers_take_it_for_text(text, tmp_path):
    import yaml

    written = dump_yaml({"a": text})
    assert read_yaml(write(tmp_path / "a.yaml", written)) == {"a": text}
    assert yaml.safe_load(written) == {"a": text}  # YAML 1.1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: !!int 010", "line 1: broken YAML: '010' is not an integer"),
        ("b: 1\na: !!float 1:30", "line 2: broken YAML: '1:30' is not a number"),
        ("a: !!timestamp 2026-11-24", "line 1: broken YAML"),
        ("a: !!set {b}", "line 1: broken YAML"),
        ("a: " + "9" * 5000, "broken YAML"),
    ],
)
def test_a_tag_makes_no_other_number_of_it(text, said, tmp_path):
    with pytest.raises(UserError, match=r"a\.yaml") as caught:
        read_yaml(write(tmp_path / "a.yaml", text))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("  hidden: [010]", "model.hidden: must be a list of integers, got ['010']"),
        ("  dropout: 1:30", "model.dropout: must be a number, got '1:30'"),
        ("  hidden: [1_000]", "model.hidden: must be a list of integers, got ['1_000']"),
    ],
)
def test_a_number_of_a_file_is_what_it_is_on_the_command_line(line, said, dlx_call, here):
    write(here / "mine/model/own.yaml", f"{MLP}{line}\n")
    assert refusal(dlx_call, "model=own") == [f"error: {said} (mine/model/own.yaml, line 5)"]
    key, _, value = line.strip().partition(": ")
    call = dlx_call("config", "model=mlp", f"model.{key}={value}")
    if "_" not in value:  # Hydra's own grammar takes 1_000
        assert call.err == f"error: {said}\n"


def test_text_keeps_its_digits(dlx_call, here):
    write(here / "mine/experiment/own.yaml", "# @package _global_\n# Mine.\nname: 010\n")
    call = dlx_call("config", "--conf-dir", "mine", "experiment=own")
    assert "name: '010'" in call.out


def test_a_value_is_laid_on_the_file_that_sets_it(dlx_call, here):
    """An option that begins with another one, and an experiment that sets keys of all groups."""
    write(here / "mine/optimizer/base.yaml", "# Mine.\ndefaults: [/optimizer/adam@_here_, _self_]\nlr: 010\n")
    write(here / "mine/optimizer/top.yaml", "# Mine.\ndefaults: [/optimizer/base@_here_, _self_]\neps: 1e-7\n")
    assert refusal(dlx_call, "optim=top") == [
        "error: optimizer.lr: must be a number, got '010' (mine/optimizer/base.yaml, line 3)"
    ]
    write(here / "mine/experiment/own.yaml", "# @package _global_\n# Mine.\noptimizer:\n  lr: 1:30\n")
    assert refusal(dlx_call, "experiment=own") == [
        "error: optimizer.lr: must be a number, got '1:30' (mine/experiment/own.yaml, line 4)"
    ]
    assert dlx_call("config", "--conf-dir", "mine", "experiment=own", "optim.lr=1").code == 0


def test_lines_are_found_in_lists_and_blocks(tmp_path):
    path = write(tmp_path / "a.yaml", "a:\n  b:\n    - 1\n    - c: 2\n")
    assert [line_of(path, keys) for keys in (["a", "b"], ["a", "b", "1", "c"], ["a", "x"], ["a", "b", "7"])] == [
        3, 4, None, None,
    ]  # fmt: skip


def test_a_byte_order_mark_is_none_of_the_file(dlx_call, here):
    write(here / "mine/model/own.yaml", "\ufeff" + MLP)
    assert dlx_call("config", "--conf-dir", "mine", "model=own").code == 0
    assert re.search(r"^own +Mine\.", dlx_call("list", "model", "--conf-dir", "mine").out, re.MULTILINE)


@pytest.mark.parametrize(
    "head", ["# Mine.\n# @package _global_\n", "\n\n#@package _global_\n", "# @package: _global_\n"]
)
def test_the_package_line_may_be_anywhere_in_the_head(head, here):
    write(here / "mine/model/own.yaml", f"{head}model:\n  _target_: dlx.models.mlp.MLP\n  hidden: [7]\n")
    assert compose(["model=own"], conf_dirs=["mine"])["model"]["hidden"] == [7]


@pytest.mark.parametrize(
    ("file", "text", "key"),
    [
        ("model/own.yaml", "# Mine.\nmodel:\n  _target_: dlx.models.mlp.MLP\n", "model"),
        ("experiment/own.yaml", "# Mine.\ntrainer:\n  epochs: 3\n", "trainer"),
        ("regularization/own.yaml", "# Mine.\nmodel:\n  dropout: 0.5\n", "model"),
        ("optimizer/own.yaml", "# Mine.\noptimizer:\n  lr: 0.5\n", "optimizer"),
    ],
)
def test_a_file_without_the_package_line_is_told_so(file, text, key, dlx_call, here):
    write(here / "mine" / file, text)
    group = file.partition("/")[0]
    assert refusal(dlx_call, f"{group}=own") == [
        f"error: mine/{file}: sets `{key}:`, so it needs a first line `# @package _global_`"
    ]


def test_a_file_that_is_not_utf_8_is_named_and_hides_no_other(dlx_call, here):
    write(here / "mine/model/latin.yaml", "# Caf\xe9.\n".encode("latin-1"))
    write(here / "mine/model/own.yaml", MLP)
    said = "byte 0xe9 is not UTF-8; save the file as UTF-8"
    assert refusal(dlx_call, "model=latin") == [f"error: mine/model/latin.yaml, line 1: {said}"]
    listed = dlx_call("list", "model", "--conf-dir", "mine")
    assert listed.code == 0
    assert said in listed.out
    assert "Mine." in listed.out
    assert dlx_call("config", "--conf-dir", "mine", "model=own").code == 0
    assert dlx_call("config", "--conf-dir", "mine", "model=cnn").code == 0
    assert f"latin.yaml, line 1: {said}" in dlx_call("schema", "--conf-dir", "mine").err


@pytest.mark.parametrize("text", ["3", "- a\n- b\n", "just text"])
def test_a_file_that_is_no_mapping_is_named(text, dlx_call, here):
    write(here / "mine/optimizer/own.yaml", text)
    (line,) = refusal(dlx_call, "optim=own")
    assert line.startswith("error: mine/optimizer/own.yaml: must be keys with values, got ")


@pytest.mark.parametrize("name", ["it's mine", "a b", "a,b", "${x}", "a=b", "caf\u00e9", '"x"', "a\\b", "[x]"])
def test_a_folder_may_have_any_name(name, dlx_call, here):
    write(here / name / "model/own.yaml", f"{MLP}  hidden: [7]\n")
    call = dlx_call("config", "--conf-dir", name, "model=own")
    assert call.code == 0, call.err
    assert "- 7" in call.out


def test_other_users_of_hydra_do_not_see_the_folders(here):
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    write(here / "mine/model/own.yaml", MLP)
    compose(["model=own"], conf_dirs=["mine"])
    write(here / "theirs/config.yaml", "a: 1\n")
    with initialize_config_dir(str(here / "theirs"), version_base="1.3"):
        assert hydra_compose("config") == {"a": 1}
