"""Data that change under a run: what was tested stays the test split, and each change is said with numbers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlx.runs.folder import RunFolder

SETTINGS = ("model=mlp", "model.hidden=[8]", "data=image_folder", "data.size=6", "trainer.epochs=12")
WORDS = (*SETTINGS, "data.path=photos")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("DLX_DATA", str(tmp_path_factory.mktemp("cache")))


def draw(path: Path, label: int, seed: int) -> None:
    """Noise, brighter for the second class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 120, (6, 6, 3)) + 100 * label
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture
def photos(here):
    for label, name in enumerate(("cat", "dog")):
        for number in range(60):
            draw(Path(f"photos/{name}/{number:02d}.png"), label, 100 * label + number)
    return Path("photos")


def train(call, *words) -> dict:
    done = call("train", *WORDS, *words, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def samples_of(split: str) -> set[str]:
    from dlx.config import build, build_shared, compose

    config = compose(WORDS)
    dataset = build(config, "dataset")
    part = build_shared(config, "dataset").split(dataset)[split]
    return {part.source.keys[n] for n in part.index.tolist()}


def test_one_photo_less_moves_no_other(photos):
    before = {split: samples_of(split) for split in ("train", "val", "test")}
    assert 0.1 < len(before["test"]) / 120 < 0.3
    assert set.union(*before.values()) == {f"{name}/{n:02d}.png" for name in ("cat", "dog") for n in range(60)}
    gone = "cat/17.png"
    (photos / gone).unlink()
    draw(photos / "dog" / "new.png", 1, 7)
    for split, names in before.items():
        assert samples_of(split) - {"dog/new.png"} == names - {gone}


def test_a_changed_photo_is_said_with_numbers_and_the_evaluation_is_the_same(photos, dlx_call):
    told = train(dlx_call)
    same = dlx_call("eval", told["run"], "--json")
    assert "changed" not in same.err
    metrics = json.loads(same.out)["metrics"]
    assert metrics["test/accuracy"] == pytest.approx(told["metrics"]["test/accuracy"])
    (photos / sorted(samples_of("train"))[0]).unlink()
    name = sorted(samples_of("train"))[1]
    draw(photos / name, 0, 999)
    changed = dlx_call("eval", told["run"], "--json")
    assert "of the run's 120 samples: 1 missing (train: " in changed.err
    assert f"1 changed (train: {name})" in changed.err
    assert json.loads(changed.out)["metrics"] == pytest.approx(metrics)  # the test photos are what they were


def test_other_classes_are_an_error(photos, dlx_call):
    run = train(dlx_call)["run"]
    (photos / "dog").rename(photos / "wolf")
    for command in (("eval", run), ("resume", run, "trainer.epochs=14")):
        call = dlx_call(*command)
        assert call.code == 2, call.err
        assert "label has 2 classes, not its 2 (without dog and with wolf)" in call.err
    shutil.copytree(photos / "wolf", photos / "dog")
    call = dlx_call("eval", run)
    assert call.code == 2
    assert "label has 3 classes, not its 2 (with wolf)" in call.err
    assert RunFolder(run).status()["status"] == "finished"


def test_moved_data_are_given_by_their_path(photos, dlx_call, monkeypatch):
    told = train(dlx_call)
    run = str(Path(told["run"]).absolute())
    assert str(Path("photos").absolute()) in (Path(run) / "config.yaml").read_text()
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert dlx_call("eval", run).code == 0  # from another folder
    Path("../photos").rename("../moved")
    gone = dlx_call("eval", run)
    assert gone.code == 2
    assert "there is no such directory or archive" in gone.err
    moved = dlx_call("eval", run, "data.path=../moved", "--json")
    assert moved.code == 0, moved.err
    assert json.loads(moved.out)["metrics"]["test/accuracy"] == pytest.approx(told["metrics"]["test/accuracy"])
    assert "changed" not in moved.err
    resumed = dlx_call("resume", run, "trainer.epochs=14", "data.path=../moved", "--json")
    assert resumed.code == 0, resumed.err
    assert "changed" not in resumed.err
    assert "not a key" not in dlx_call("eval", run, "nonsense=1").err
    assert dlx_call("eval", run, "nonsense=1").code == 2


def test_workers_may_change_on_resume_and_the_bits_stay(photos, dlx_call, sigterm_at):
    whole = train(dlx_call)["metrics"]
    with sigterm_at(20):
        cut = dlx_call("train", *WORDS, "--json")
    assert cut.code == 143
    run = json.loads(cut.out.splitlines()[-1])["run"]
    assert json.loads(dlx_call("resume", run, "dataset.workers=2", "--json").out)["metrics"] == whole


def test_a_folder_of_photos_works_as_it_stands(here, dlx_call):
    """Photos of several sizes, as a person has them: a size and a batch are chosen, and it is said."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("cat", "dog")):
        for number in range(30):
            height, width = (int(side) for side in rng.integers(20, 40, 2))
            pixels = rng.integers(0, 120, (height, width, 3)) + 100 * label
            path = Path(f"photos/{name}/{number}.jpg")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    Path("photos/dog/notes.heic").write_bytes(b"?")
    done = dlx_call("train", "model=cnn", "data=image_folder", "data.path=photos", "trainer.epochs=1", "--json")
    assert done.code == 0, done.err
    assert "sizes are scaled to 24x24 (dataset.size sets another)" in done.err
    assert "files that are not read: 1 .heic" in done.err
    assert "steps in all" in done.err
    assert "batch_size: 4" in (Path(json.loads(done.out)["run"]) / "config.yaml").read_text()


def test_one_class_is_said_before_the_start(here, dlx_call):
    for number in range(40):
        draw(Path(f"photos/cat/{number}.png"), 0, number)
    done = dlx_call("train", *WORDS, "--json")
    assert "one class only (cat)" in done.err


def test_a_class_that_a_fold_lacks_is_said(here, dlx_call):
    for label, (name, count) in enumerate((("cat", 40), ("dog", 40), ("owl", 3))):
        for number in range(count):
            draw(Path(f"photos/{name}/{number}.png"), min(label, 1), 100 * label + number)
    done = dlx_call("train", *WORDS, "dataset.folds=5", "dataset.fold=4", "--json")
    assert done.code == 0, done.err
    assert "val has no sample of 1 of 3 classes: owl" in done.err


def test_predict_warns_where_brightness_is_far_from_the_trainings(here, dlx_call):
    dlx_call("train", "model=mlp", "model.hidden=[16]", "trainer.epochs=3", "name=digits")
    from dlx.data.digits import Digits

    image = Digits().splits()["train"].tensors["image"]
    for number in range(10):
        pixels = (image[number, 0].numpy() * 15.9).astype(np.uint8)
        Image.fromarray(pixels).save(f"{number}.png")
        Image.fromarray(255 - pixels).save(f"inverted-{number}.png")
    files = [f"{number}.png" for number in range(10)]
    assert "warning" not in dlx_call("predict", "digits", *files, "--no-pictures").err
    inverted = dlx_call("predict", "digits", *(f"inverted-{file}" for file in files), "--no-pictures")
    assert "far brighter or darker than those of the training" in inverted.err
