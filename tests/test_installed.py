"""The wheel, installed into an environment of its own, works from an empty folder."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_wheel_brings_its_options(tmp_path):
    def run(*command, cwd=tmp_path):
        done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(sys.executable, "-c", f"import hatchling.build as b; b.build_wheel({str(tmp_path)!r})", cwd=ROOT)
    (wheel,) = tmp_path.glob("dlx-*.whl")
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    python = tmp_path / "env" / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet", wheel)
    # The new environment sees this one's dependencies, but not the checkout that is installed here in place.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "resnet" in run(tmp_path / "env" / "bin" / "dlx", "list", "model", cwd=empty)
    where = run(python, "-c", "import dlx; print(dlx.__file__)", cwd=empty)
    assert str(site) in where
    out = run(tmp_path / "env" / "bin" / "dlx", "train", "model=linear", "trainer.epochs=1", cwd=empty)
    assert "test/accuracy" in out
