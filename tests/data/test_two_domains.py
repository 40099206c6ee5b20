import pytest
import torch

from dlx.data.splits import SplitSettings
from dlx.data.two_domains import LIGHTS, TwoDomains, in_light


@pytest.fixture(scope="module")
def splits():
    return TwoDomains(samples=40, side=16).splits()


@pytest.mark.parametrize("light", LIGHTS)
def test_a_light_is_a_map_with_an_inverse_that_keeps_colours_in_range(light):
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3).view(8, 3, 1, 1)
    seen = in_light(corners, light)
    assert seen.min() >= 0
    assert seen.max() <= 1
    torch.testing.assert_close(in_light(seen, "day", before=light), corners, atol=1e-5, rtol=0)


def test_a_red_object_is_blue_by_night_and_no_light_is_the_inverse_of_another():
    red = torch.tensor([0.84, 0.19, 0.19]).view(1, 3, 1, 1)
    assert in_light(red, "night").flatten().argmax() == 2
    assert in_light(red, "dusk").flatten().argmax() == 1
    for a in LIGHTS:
        for b in LIGHTS:
            if a != b:
                x = torch.rand(50, 3, 1, 1, generator=torch.Generator().manual_seed(0))
                assert (in_light(in_light(x, b, before=a), b, before=a) - x).abs().mean() > 0.1  # twice is not back
                assert (in_light(x, b, before=a) - (1 - x)).abs().mean() > 0.1


def test_sides_are_of_other_scenes_in_training_and_of_the_same_in_val_and_test(splits):
    shown = {name: [getattr(part, side).tensors[f"match_{side}"] for side in "ab"] for name, part in splits.items()}
    a, b = (set(rows.tolist()) for rows in shown["train"])
    assert not a & b
    for name in ("val", "test"):
        assert torch.equal(*shown[name])
        assert not (a | b) & set(shown[name][0].tolist())
        parts = splits[name]
        truth = in_light(parts.a.tensors["image_a"].float() / 255, "night")
        assert (truth - parts.b.tensors["image_b"].float() / 255).abs().max() < 1 / 255


def test_pairs_stay_pairs_under_the_settings_and_a_fold_has_none():
    data = TwoDomains(samples=40, side=16)
    found = SplitSettings(batch_size=4).split(data)["test"]
    batch = found.source.take(torch.arange(4))
    assert torch.equal(batch["match_a"], batch["match_b"])
    val = SplitSettings(batch_size=4, folds=4, fold=1).split(data)["val"]
    a = val.a.source.tensors["match_a"][val.a.index]
    b = val.b.source.tensors["match_b"][val.b.index]
    assert not torch.isin(a, b).any()


def test_the_same_seed_draws_the_same_scenes():
    one, again, other = (
        TwoDomains(samples=20, side=16, data_seed=seed).splits()["train"].a.tensors["image_a"] for seed in (0, 0, 1)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_bad_settings_name_the_argument():
    for bad in ({"a": "noon"}, {"b": "day"}, {"samples": 5}, {"side": 8}, {"kinds": 6}):
        with pytest.raises(ValueError, match=f"^{next(iter(bad))}"):
            TwoDomains(**bad)
