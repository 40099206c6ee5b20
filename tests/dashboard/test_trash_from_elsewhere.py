"""The trash lies in a folder that may come from anywhere: nothing is moved that is not its own."""

import json

import pytest

from dlx.dashboard.trash import Refused, restore


@pytest.fixture
def trash(here):
    """outputs/.trash/key with one run, and somebody's folder beside outputs/."""
    place = here / "outputs" / ".trash" / "key"
    (place / "0").mkdir(parents=True)
    (place / "0" / "config.yaml").write_text("seed: 0\n")
    (here / "precious").mkdir()
    (here / "precious" / "file").write_text("of somebody else")
    return place


def manifest(place, moved):
    (place / "manifest.json").write_text(json.dumps({"moved": moved}))


@pytest.mark.parametrize(
    "moved",
    [
        {"../../../precious": "mlp/stolen"}, {"/etc": "mlp/stolen"}, {"..": "mlp/x"}, {".": "mlp/x"}, {"": "mlp/x"},
        {"0/../../../../precious": "mlp/x"}, {"٣": "mlp/x"}, {"0": "../out"}, {"0": "/tmp/out"}, {"0": ""},
        {"0": ".trash/key/0/x"}, {"0": "mlp/../../out"}, {"link": "mlp/x"}, {"1": "mlp/x"},
    ],
)  # fmt: skip
def test_keys_and_values_lead_nowhere_else(moved, trash, here):
    for name in ("link", "1"):
        (trash / name).symlink_to(here / "precious")
    manifest(trash, moved)
    before = sorted(path.relative_to(here) for path in here.rglob("*") if path.name != "manifest.json")
    with pytest.raises(Refused):
        restore(here / "outputs", "key")
    assert sorted(path.relative_to(here) for path in here.rglob("*") if path.name != "manifest.json") == before
    assert (here / "precious" / "file").read_text() == "of somebody else"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"moved": 3}', '{"moved": []}', "[" * 100_000])
def test_a_manifest_that_is_none_is_said(text, trash, here):
    (trash / "manifest.json").write_text(text)
    with pytest.raises(Refused, match=r"manifest\.json cannot be read"):
        restore(here / "outputs", "key")


def test_the_trash_and_what_is_in_it_are_no_links(trash, here):
    manifest(trash, {"0": "mlp/run"})
    (here / "outputs" / ".trash" / "linked").symlink_to(trash)
    with pytest.raises(Refused, match="not in the trash"):
        restore(here / "outputs", "linked")
    (here / "outputs" / ".trash").rename(here / "elsewhere")
    (here / "outputs" / ".trash").symlink_to(here / "elsewhere")
    with pytest.raises(Refused, match="not in the trash"):
        restore(here / "outputs", "key")


def test_what_is_its_own_comes_back(trash, here):
    manifest(trash, {"0": "mlp/run"})
    assert restore(here / "outputs", "key") == ["mlp/run"]
    assert (here / "outputs" / "mlp" / "run" / "config.yaml").is_file()
    assert list((here / "outputs" / ".trash").iterdir()) == []
