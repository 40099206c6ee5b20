"""A run folder may come from anywhere: what is malformed in it is one line, and nothing outside it is touched."""

import gzip
import hashlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch

import dlx.cli
from dlx.runs.folder import FILES, FOLDERS, RunFolder

TINY = ("model=mlp", "model.hidden=[8]", "trainer.max_steps=6", "trainer.log_every=3", "trainer.validate_every=3")
DEEP = "[" * 100_000
HUGE = "1" + "0" * 400
LABELED = "dlx.tasks.spec.LabeledImages"

LOOKING = (("report", "--out", "r.html"), ("compare",), ("runs",), ("sync", "--dry-run"))
LOADING = (("eval",), ("predict", "seven.png"), ("export", "--format", "safetensors"))
ALL = (*LOOKING, *LOADING, ("train", "--from"), ("resume",))

MALFORMED = {
    "config.yaml": (ALL, [
        "", "[", "- 1", "choices: 3", "choices: {model: [1]}", "a: &x [1]\nb: *x\n", "{" * 2000, b"\xff\xfe",
        "format: 99\nchoices: {}\n", "seed: !!python/object:os.system x\n",
    ]),
    "spec.json": ((*LOADING, ("resume",)), [
        "", "[]", "{}", '{"_target_": 3}', '{"format": [1]}', DEEP,
        '{"_target_": "os.system", "format": 1, "entries": {}}',
        f'{{"_target_": "{LABELED}", "format": 1, "entries": {{"image": 3}}}}',
        f'{{"_target_": "{LABELED}", "format": 1, "entries": []}}', '{"_target_": "dlx.tasks.spec.ImageSpec"}',
    ]),
    "summary.json": ((*LOOKING, ("resume",)), [
        "[]", '{"seconds": "NaN", "steps": "x", "monitor": 3, "best": []}', '{"finished": 1e400, "seconds": 1e308}',
        DEEP, f'{{"val/loss": {HUGE}}}', '{"members": 3, "best": "../.."}', '{"lacks": 3, "steps": [1]}',
    ]),
    "status.json": ((*LOOKING, ("resume",)), ["[]", '{"status": []}', '{"status": "failed", "reason": [1]}', DEEP]),
    "metrics.jsonl": ((*LOOKING, ("resume",)), [
        "[1]\n", DEEP + "\n", f'{{"step": 1, "a": {HUGE}}}\n', '{"step": "x"}\n{"step": NaN}\n{"step": -1e308}\n',
        '{"step": 1, "_event": "resume", "changed": 3}\n{"step": 1, "epoch": "x", "time": []}\n', b"\xff\n\x00\n",
    ]),
    "environment.json": (LOOKING, ["[]", '{"started": 3, "command": ["dlx", 3, null, ["x"]], "versions": 3}', DEEP]),
    "data.json.gz": ((("eval",), ("resume",)), [
        b"\x1f\x8b", gzip.compress(b"[]"), gzip.compress(b'{"samples": 3, "counts": 3}'), gzip.compress(DEEP.encode()),
    ]),
    "run.lock": ((*LOOKING, ("resume",)), ["", "[]", '{"pid": "x", "host": 3, "boot": []}', DEEP]),
    "notes.json": (LOOKING, ['{"tags": 3, "notes": {}}', DEEP]),
    "wandb.json": ((("sync", "--dry-run"),), ['{"step": "x", "project": 3}', "[]"]),
    "checkpoints/latest": ((("eval",), ("resume",)), ["", "../../.."]),
}  # fmt: skip
CASES = [(name, number) for name, (_, texts) in MALFORMED.items() for number in range(len(texts))]


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """outputs/one, a run, and outputs/many, a method's two; a picture."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("hostile")
    before, argv = Path.cwd(), sys.argv
    os.chdir(folder)
    try:
        for words in (("name=one",), ("name=many", "method=seeds", "method.count=2")):
            sys.argv = ["dlx", "train", *TINY, *words]
            with pytest.raises(SystemExit) as end:
                dlx.cli.main()
            assert end.value.code == 0
    finally:
        os.chdir(before)
        sys.argv = argv
    Image.new("L", (8, 8)).save(folder / "seven.png")
    return folder


@pytest.fixture
def copy(made, here):
    """copy("one"): that folder, as one that was interrupted; the current folder has a copy of all."""
    shutil.copytree(made, here, dirs_exist_ok=True)

    def of(group: str) -> Path:
        (run,) = (here / "outputs" / group).iterdir()
        RunFolder(run).write_status("interrupted", "signal 15")
        return run

    return of


@pytest.fixture
def check(dlx_call):
    """check(run, file, commands): each of them works, or says in one line, with exit code 2, which file is wrong."""

    def late(signum, frame):
        raise TimeoutError("it hangs")

    def run(folder: Path, file: str, commands) -> list[int]:
        codes = []
        for command, *words in commands:
            named = [] if command == "runs" else [str(folder)]
            words = [*words, *named] if command == "train" else [*named, *words]
            signal.signal(signal.SIGALRM, late)
            signal.alarm(20)
            try:
                call = dlx_call(command, *words)
            finally:
                signal.alarm(0)
            assert "failed: " not in call.err, (command, call.err)
            assert "Traceback" not in call.err
            assert call.code in (0, 2), (command, call.err)
            if call.code == 2:
                errors = [line for line in call.err.splitlines() if line.startswith("error: ")]
                assert len(errors) == 1 or file == "config.yaml", (command, errors)
                assert any(file in line for line in errors), (command, errors)
            codes.append(call.code)
        return codes

    return run


@pytest.mark.parametrize(("name", "number"), CASES)
def test_what_is_malformed_is_one_line_that_names_the_file(name, number, copy, check):
    commands, texts = MALFORMED[name]
    run, text = copy("one"), texts[number]
    (run / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    codes = check(run, Path(name).name, commands)
    if name == "config.yaml":
        looked = [0, 0] if number == 4 else [2, 2]  # what a list shows of an odd choice is harmless
        assert codes == [*looked, 0, 2, 2, 2, 2, 2, 2]  # a list of runs shows it as one that cannot be read
    if name == "spec.json":
        assert set(codes) == {2}


STATES = (
    3, {}, {"state": 3, "parts": 3, "optimizers": []}, {"state": {"x": 1}, "parts": [{}], "optimizers": []}, "junk",
)  # fmt: skip


@pytest.mark.parametrize("number", range(len(STATES)))
def test_a_state_that_is_whole_and_none_of_this_run(number, copy, check):
    run, state = copy("one"), STATES[number]
    (checkpoint,) = (run / "checkpoints").glob("step-*")
    path = checkpoint / "state.pt"
    path.write_text("junk") if state == "junk" else torch.save(state, path)
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    content = path.read_bytes()
    manifest["files"]["state.pt"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    assert check(run, checkpoint.name, [*LOADING, ("resume",)]) == [0, 0, 0, 2]
    assert not (run / "run.lock").exists()


@pytest.mark.parametrize("text", ["{}", '{"files": {}}', "[1]"])
def test_a_manifest_that_is_json_and_nothing_more(text, copy, check, dlx_call):
    run = copy("one")
    (checkpoint,) = (run / "checkpoints").glob("step-*")
    (checkpoint / "manifest.json").write_text(text)
    assert check(run, "manifest.json", LOADING) == [2, 2, 2]
    call = dlx_call("resume", str(run))
    assert call.code == 0
    assert "it begins anew" in call.err


PLANS = {
    "plan.yaml": [
        "", "[", "[]", "members: 3", "members: {a: 3}", "members: {1: {}}", "members: {'../x': {}}",
        "metric: 3\nmembers: {}", "members: &a {x: *a}",
    ],
    "points.yaml": ["[]", "3", "{'../x': {}}", "{'': 3}", "{1: {}}"],
    "summary.json": ["[]", '{"members": [3], "metric": "x", "best": 3}', '{"best": ".."}'],
    "plan/seed-0.yaml": ["[", "a: 1"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "number"), [(name, n) for name, texts in PLANS.items() for n in range(len(texts))])
def test_what_is_malformed_in_a_plan(name, number, copy, check):
    run = copy("many")
    (run / name).write_text(PLANS[name][number])
    codes = check(run, Path(name).name, [("report", "--out", "r.html"), ("compare",), ("runs",), ("resume",)])
    assert codes == [0, 0, 0, 0 if name == "summary.json" else 2]
    assert not (run / "run.lock").exists()


def content(folder: Path) -> dict:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def outside(here):
    """A folder of somebody else, which looks like many a thing that dlx deletes or writes over."""
    folder = here / "outside"
    for name in ("step-00000001/x", ".tmp-1/y", ".old-step-00000001/k", "seed-0/config.yaml", "file", "model.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('{"precious": 1}\ntorn')
    return folder


KINDS = ("link", "pipe", "folder")


@pytest.mark.parametrize("group", ["one", "many"])
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_none_is_refused_and_not_followed(name, group, copy, check, outside):
    before = content(outside)
    for kind in KINDS:
        run = copy(group)
        path = run / name
        shutil.copy(path, path.with_suffix(".kept")) if path.exists() else None
        path.unlink(missing_ok=True)
        {"link": lambda p: p.symlink_to(outside / "file"), "pipe": os.mkfifo, "folder": Path.mkdir}[kind](path)
        looks = [("report", "--out", "r.html"), ("sync", "--dry-run")] if kind == "pipe" else []
        assert check(run, "config.yaml" if name == "config.yaml" else name, [*looks, ("resume",)])[-1] == 2
        assert content(outside) == before
        path.rmdir() if kind == "folder" else path.unlink()
        kept = path.with_suffix(".kept")
        kept.rename(path) if kept.exists() else None


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_is_a_link_is_neither_written_nor_deleted_through(name, copy, check, outside):
    before = content(outside)
    commands = [("eval",), ("predict", "seven.png"), ("export", "--format", "safetensors"), ("resume",)]
    run = copy("one")
    shutil.rmtree(run / name, ignore_errors=True)
    (run / name).symlink_to(outside)
    assert check(run, name, commands)[-1] == 2
    assert content(outside) == before
    (run / name).unlink()
    if name != "wandb":  # whose client makes links itself
        run = copy("one")
        (run / name).mkdir(exist_ok=True)
        (run / name / "step-00000009").symlink_to(outside)
        assert check(run, name, [("resume",)]) == [2]
        assert content(outside) == before


def test_a_pipe_among_the_media_hangs_nobody(copy, check, outside):
    run = copy("one")
    for name in ("pipe-00000001.png", "pipe-00000001.txt", "pipe.curve.json"):
        os.mkfifo(run / "media" / name)
    (run / "media" / "link-00000001.txt").symlink_to(outside / "file")
    assert check(run, "media", [("report", "--out", "r.html"), ("sync", "--dry-run")]) == [0, 0]
    assert "precious" not in Path("r.html").read_text()


def test_aliases_are_refused_by_every_reader(copy, check, dlx_call, tmp_path):
    """400 bytes that mean 3 GB."""
    run = copy("one")
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    (run / "config.yaml").write_text("\n".join(lines))
    assert check(run, "config.yaml", ALL).count(2) == len(ALL) - 1
    entry = next(found for found in json.loads(dlx_call("runs", "--json").out) if found["run"] == run.name)
    assert entry["status"] == "lost"
    assert "aliases are not used here" in entry["reason"]
    from dlx.dashboard.index import Index

    index = Index(Path("outputs"), cache=tmp_path / "cache")
    try:
        index.look()
        assert not next(found for found in index.entries.values() if found.name == run.name).config
    finally:
        index.close()
