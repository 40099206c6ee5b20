"""What would end a run before, or in, its first epoch is refused before anything is written."""

from pathlib import Path

import pytest

SMALL = ("model=mlp", "model.hidden=[8]", "trainer.epochs=1", "data.subset=40")
NORMED = (*SMALL, "model.norm=batch")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("data.batch_size=1",), "a batch has 1, and "),
        (("data.batch_size=4", "trainer.accumulate=4"), "a batch has 4, in 4 parts, and "),
        (("data.batch_size=35", "data.drop_last=false"), "the last batch of 36 samples has 1, and "),
    ],
)
@pytest.mark.parametrize("dry", [False, True])
def test_a_batch_of_one_before_a_batch_norm_is_refused(dlx_call, words, said, dry):
    call = dlx_call("train", *NORMED, *words, *(["--dry-run"] if dry else []))
    assert call.code == 2, call.err
    assert said in call.err
    assert "normalizes a batch of at least 2" in call.err
    assert len(call.err.splitlines()) == 1
    assert not Path("outputs").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("data.batch_size=2", "model.norm=batch"),
        ("data.batch_size=35", "model.norm=batch"),  # the last one is dropped
        ("data.batch_size=1",),
    ],
)
def test_what_works_is_not_refused(dlx_call, words):
    assert dlx_call("train", *SMALL, *words).code == 0


def test_norms_of_maps_see_many_values_of_one_image(dlx_call):
    assert dlx_call("train", "model=cnn", "data.batch_size=1", "trainer.max_steps=1").code == 0
