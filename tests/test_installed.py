"""The wheel, installed into an environment of its own, works from an empty folder without the packages of any extra."""

import json
import os
import re
import subprocess
import sys
import tomllib
import venv
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
SEVERAL = """
import contextlib, io, json, sys
from dlx.cli import main
calls = []
for words in json.loads(sys.argv[1]):
    sys.argv, code, out, err = ["dlx", *words], 0, io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    calls.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(calls))
"""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
FEATURES = [extra for extra in EXTRAS if extra not in ("all", "test", "lint", "bench")]
QUICK = ("model=mlp", "model.hidden=[8]", "trainer.max_steps=4", "trainer.log_every=2", "--quiet")
GRID = ("sweep", *QUICK, "seed=0,1", "--executor")


def required(requirements: list[str]) -> list[Distribution]:
    """The installed packages that these need, and what those need in turn, without extras that nothing asks for."""
    todo = [(Requirement(text), "") for text in requirements]
    found: dict[tuple[str, str], Distribution] = {}
    while todo:
        requirement, parent = todo.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": parent}):
            continue
        for extra in ("", *requirement.extras):
            key = (canonicalize_name(requirement.name), extra)
            if key not in found:
                try:
                    found[key] = distribution(requirement.name)
                except PackageNotFoundError:  # a build of torch without CUDA has none of its packages
                    break
                todo += [(Requirement(text), extra) for text in found[key].requires or []]
    return list(found.values())


class Bare:
    """dlx in an environment that has the required packages alone, as links to those of this one."""

    def __init__(self, folder: Path) -> None:
        self.empty, self.bin = folder / "empty", folder / "env" / "bin"
        self.empty.mkdir()
        python = self.bin / "python"
        self.run(sys.executable, "-c", f"import hatchling.build as b; b.build_wheel({str(folder)!r})", cwd=ROOT)
        (self.wheel,) = folder.glob("dlx-*.whl")
        venv.create(folder / "env", with_pip=False, symlinks=True)
        self.site = Path(
            self.run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()
        )
        for found in required(PROJECT["dependencies"]):
            for top in {Path(file).parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
                link, target = self.site / top, Path(str(found.locate_file(top)))
                if not link.is_symlink() and target.exists():
                    link.symlink_to(target)
        self.run(
            sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "-q", self.wheel
        )

    def run(self, *command: object, cwd: Path | None = None, code: int = 0) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "DLX_OUTPUTS")}
        words = [str(word) for word in command]
        done = subprocess.run(
            words, cwd=cwd or self.empty, capture_output=True, text=True, check=False, env=environment
        )
        assert done.returncode == code, done.stderr
        return done

    def dlx(self, *commands: tuple[str, ...]) -> list[tuple[int, str, str]]:
        """Exit code, stdout and stderr of each, called in one process: importing torch takes seconds."""
        return json.loads(self.run(self.bin / "python", "-c", SEVERAL, json.dumps(commands)).stdout)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    return Bare(tmp_path_factory.mktemp("bare"))


def test_the_wheel_brings_its_options_licence_and_types(bare):
    assert "resnet" in bare.run(bare.bin / "dlx", "list", "model").stdout
    where = bare.run(bare.bin / "python", "-c", "import dlx; print(dlx.__file__)").stdout
    assert str(bare.site) in where
    assert (bare.site / "dlx" / "py.typed").is_file()
    (metadata,) = bare.site.glob("dlx-*.dist-info")
    assert "MIT License" in (metadata / "licenses" / "LICENSE").read_text()


def test_no_package_of_an_extra_is_there(bare):
    script = "import importlib.util, sys; print([n for n in sys.argv[1:] if importlib.util.find_spec(n)])"
    packages = [Requirement(text).name for extra in FEATURES for text in EXTRAS[extra]]
    assert len(packages) >= 10
    assert bare.run(bare.bin / "python", "-c", script, *packages).stdout.strip() == "[]"


def test_it_trains_and_names_the_extra_of_what_is_missing(bare):
    works = [
        ("train", *QUICK, "name=first"),
        ("train", *QUICK, "method=kfold", "method.k=2"),
        (*GRID, "batched"),
        ("runs",),
        ("list",),
        ("show", "model=mlp"),
        ("eval", "first"),
        ("report", "first"),
        ("compare", "@last", "--plot", "curves.png", "--csv", "table.csv"),
        ("export", "first"),
        ("resume", "first", "trainer.max_steps=6", "--quiet"),
    ]
    needs = [
        ("search", ("sweep", *QUICK, "optim.lr=interval(0.1, 1)", "--search", "tpe")),
        ("dashboard", ("dashboard", "--no-open")),
        ("dashboard", ("compare", "@last", "--html", "page.html")),
        ("ray", (*GRID, "ray")),
        ("slurm", (*GRID, "slurm")),
        ("vision", ("train", "model=timm")),
        ("export", ("export", "first", "--format", "onnx")),
    ]
    *calls, doctor = bare.dlx(*works, *(words for _, words in needs), ("doctor",))
    for words, (code, _, err) in zip(works, calls, strict=False):
        assert code == 0, (words, err)
    for (extra, words), (code, _, err) in zip(needs, calls[len(works) :], strict=True):
        assert code == 2, (words, err)
        assert re.fullmatch(rf"error: .*: pip install 'dlx\[{extra}\]'.*\n", err), words
    assert not (bare.empty / "page.html").exists()
    code, told, err = doctor
    assert code == 0, err
    for extra in FEATURES:
        assert re.search(rf"^\[{extra}\] .* missing.*: pip install 'dlx\[{extra}\]'$", told, re.MULTILINE)


def test_the_extras_all_and_test_have_every_feature():
    (everything,) = EXTRAS["all"]
    assert Requirement(everything).extras == set(FEATURES)
    assert "dlx[all]" in EXTRAS["test"]
