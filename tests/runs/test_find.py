import shutil

import pytest

from dlx.config.errors import UserError
from dlx.runs.find import all_runs, find_run
from dlx.runs.folder import RunFolder


def make(root, group, name, started=None):
    path = root / group / name
    path.mkdir(parents=True)
    (path / "config.yaml").write_text("{}")
    if started:
        (path / "environment.json").write_text(f'{{"started": "{started}"}}')
    return RunFolder(path)


@pytest.fixture
def root(tmp_path):
    make(tmp_path, "mlp", "20261101-000000-mlp-00aa")
    make(tmp_path, "cnn", "20261102-000000-cnn-00bb")
    return tmp_path


def test_the_last_is_what_was_started_last(root):
    assert find_run("@last", root).name == "20261102-000000-cnn-00bb"
    make(root, "runs", "20261103-000000-runs-00cc")  # a run may be called as the folder of a plan's members is
    assert find_run("@last", root).name == "20261103-000000-runs-00cc"
    make(root, "mlp", "z", started="2026-11-02T12:00:00+00:00")  # a folder that somebody renamed
    assert find_run("@last", root).name == "20261103-000000-runs-00cc"
    assert [run.name for run in all_runs(root)][-2:] == ["z", "20261103-000000-runs-00cc"]


def test_members_follow_their_plan(root):
    plan = make(root, "sweep", "20261101-120000-sweep-00dd")
    make(plan.path, "runs", "000-a", started="2026-11-09T00:00:00+00:00")
    make(plan.path, "runs", "001-a", started="2026-11-08T00:00:00+00:00")
    assert "000-a" not in [run.name for run in all_runs(root)]
    names = [run.name for run in all_runs(root, members=True)]
    assert names[1:] == ["20261101-120000-sweep-00dd", "000-a", "001-a", "20261102-000000-cnn-00bb"]


def test_what_was_thrown_away_or_linked_is_not_found(root):
    (root / ".trash/20261109-000000").mkdir(parents=True)
    shutil.move(root / "cnn/20261102-000000-cnn-00bb", root / ".trash/20261109-000000/0")
    (root / "other").symlink_to(root / "mlp")
    assert [run.name for run in all_runs(root)] == ["20261101-000000-mlp-00aa"]
    with pytest.raises(UserError, match="00bb: no such run"):
        find_run("00bb", root)
