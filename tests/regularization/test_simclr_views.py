"""SimCLR's views: windows, mirrors, color, blur; each a function of its own draws."""

import math

import pytest
import torch
import torchvision.transforms.v2.functional as V
from torchvision.transforms import InterpolationMode

from dlx.random import reseed
from dlx.regularization.simclr_views import CHANGES, GREY, SimCLRViews
from dlx.tasks.spec import Image, Images

SPEC = Image(channels=3, height=16, width=20, mean=(0.0,) * 3, std=(1.0,) * 3)
GRAY_SPEC = Image(channels=1, height=16, width=20, mean=(0.0,), std=(1.0,))
OFF = {"crop": None, "flip": False, "color": 0.0, "grey": 0.0, "blur": 0.0}


class Reads:
    """A system that is only a spec."""

    takes = ()
    views = ()

    def __init__(self, image=SPEC):
        self.spec = Images(image=image)


@pytest.fixture
def image():
    """Smooth images in [0.2, 0.7], so that no change of color leaves [0, 1]."""
    reseed(0, "test")
    coarse = torch.rand(6, 3, 4, 5)
    return 0.2 + 0.5 * torch.nn.functional.interpolate(coarse, (16, 20), mode="bilinear")


def draws(count=6, **columns):
    """Uniform numbers of which all but some say that nothing happens."""
    places = {
        "area": 0, "aspect": 1, "y": 2, "x": 3, "mirror": 4, "jitter": 5, "brightness": 6, "contrast": 7,
        "saturation": 8, "hue": 9, "first": 10, "second": 11, "third": 12, "fourth": 13, "grey": 14, "blur": 15,
        "sigma": 16,
    }  # fmt: skip
    u_BD = torch.full((count, SimCLRViews.draws), 0.5)
    for name, number in {"mirror": 1.0, "jitter": 0.0, "grey": 1.0, "blur": 1.0, **columns}.items():
        u_BD[:, places[name]] = number
    return u_BD


def test_with_all_off_a_view_is_the_image(image):
    torch.testing.assert_close(SimCLRViews(**OFF).view(image, SPEC, draws()), image)


def test_normalized_images_stay_normalized(image):
    spec = Image(channels=3, height=16, width=20, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.1))
    normed = spec.normalize(image * spec.scale)
    torch.testing.assert_close(SimCLRViews(**OFF).view(normed, spec, draws()), normed, atol=1e-5, rtol=1e-5)


def test_a_view_is_a_function_of_the_draws_and_of_no_other_image(image):
    views, u_BD = SimCLRViews(), torch.rand(6, SimCLRViews.draws)
    together = views.view(image, SPEC, u_BD)
    alone = torch.cat([views.view(image[n : n + 1], SPEC, u_BD[n : n + 1]) for n in range(6)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_a_mirror_is_exact(image):
    found = SimCLRViews(**{**OFF, "flip": True}).view(image, SPEC, draws(mirror=0.4))
    torch.testing.assert_close(found, image.flip(-1), atol=1e-5, rtol=1e-5)


def test_the_whole_window_is_the_image_and_a_quarter_is_resized(image):
    views = SimCLRViews(**{**OFF, "crop": (0.25, 1.0)})
    own = 0.5 + 0.5 * math.log(20 / 16) / math.log(4 / 3)  # the aspect ratio of the image
    torch.testing.assert_close(views.view(image, SPEC, draws(area=1.0, aspect=own)), image, atol=1e-5, rtol=1e-5)
    # Half of the sides, at the top left; away from its border, where torchvision pads the window and dlx does not.
    found = views.view(image, SPEC, draws(area=0.0, aspect=own, y=0.0, x=0.0))
    expected = V.resize(image[..., :8, :10], [16, 20], InterpolationMode.BICUBIC, antialias=False)
    torch.testing.assert_close(found[..., :12, :15], expected[..., :12, :15], atol=1e-4, rtol=1e-4)


def test_windows_have_the_areas_and_aspect_ratios_that_were_asked_for():
    """A ramp of columns tells a window's width, one of rows its height."""
    square = Image(channels=3, height=32, width=32, mean=(0.0,) * 3, std=(1.0,) * 3)
    ramp = torch.linspace(0, 1, 32)
    x = torch.stack([ramp.expand(32, 32), ramp.view(32, 1).expand(32, 32), torch.zeros(32, 32)]).expand(400, -1, -1, -1)
    reseed(0, "test")
    found = SimCLRViews(**{**OFF, "crop": (0.1, 0.5)}).view(x, square, torch.rand(400, SimCLRViews.draws))
    width_B, height_B = (found[:, 0, 16, 24] - found[:, 0, 16, 8]) * 2, (found[:, 1, 24, 16] - found[:, 1, 8, 16]) * 2
    area_B, aspect_B = width_B * height_B * (31 / 32) ** 2, width_B / height_B
    assert 0.09 < area_B.min() < 0.12
    assert 0.45 < area_B.max() < 0.52
    assert 0.74 < aspect_B.min() < 0.8
    assert 1.25 < aspect_B.max() < 1.35


@pytest.mark.parametrize(("name", "number"), [("brightness", 0), ("contrast", 1), ("saturation", 2)])
def test_each_change_of_color_is_torchvisions(name, number, image):
    """torchvision rounds the weights of its grey value."""
    adjust = (V.adjust_brightness, V.adjust_contrast, V.adjust_saturation)[number]
    found = SimCLRViews(**{**OFF, "color": 0.25}).view(image, SPEC, draws(**{name: 0.75}))
    torch.testing.assert_close(found, adjust(image, 1.1), atol=5e-4, rtol=5e-4)


def test_changes_are_applied_in_the_order_of_their_ranks(image):
    factors, ranks = {"brightness": 0.9, "contrast": 0.1, "saturation": 0.8}, ("first", "second", "third", "fourth")
    views = SimCLRViews(**{**OFF, "color": 0.5})
    adjusts = (V.adjust_brightness, V.adjust_contrast, V.adjust_saturation)
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        expected = image
        for number in order:
            expected = adjusts[number](expected, 1 + 0.4 * (2 * list(factors.values())[number] - 1))
        rank = {ranks[number]: (1 + place) / 10 for place, number in enumerate(order)}
        found = views.view(image, SPEC, draws(**factors, **rank, fourth=0.9))
        torch.testing.assert_close(found, expected.clamp(0, 1), atol=1e-3, rtol=1e-3)
    assert CHANGES == 4


def test_a_turn_of_the_hue_keeps_grey_values_and_a_whole_circle_is_nothing(image):
    grey_3 = torch.tensor(GREY)
    views = SimCLRViews(**{**OFF, "color": 1.0})
    matrix, offset = views._color_map(image.mean((2, 3)), draws(hue=1.0)[:, 5:15], grey_3)
    torch.testing.assert_close(grey_3 @ matrix, grey_3.expand(6, 3), atol=1e-5, rtol=1e-5)
    assert offset.abs().max() < 1e-6
    fifth = matrix[0]  # 0.2 of the circle
    torch.testing.assert_close(torch.linalg.matrix_power(fifth, 5), torch.eye(3), atol=1e-4, rtol=1e-4)
    assert (fifth - torch.eye(3)).abs().max() > 0.5


def test_red_turns_towards_where_torchvision_turns_it():
    red = torch.tensor([0.7, 0.3, 0.3]).view(1, 3, 1, 1).expand(1, 3, 16, 20)
    found = SimCLRViews(**{**OFF, "color": 0.5}).view(red, SPEC, draws(1, hue=1.0))
    expected = V.adjust_hue(red, 0.1)
    assert ((found > red) == (expected > red))[0, 1].all()  # towards yellow: more green
    assert (found[0, 1] > found[0, 2]).all()


def test_without_color_three_channels_are_equal(image):
    found = SimCLRViews(**{**OFF, "grey": 0.5}).view(image, SPEC, draws(grey=0.4))
    torch.testing.assert_close(found[:, 0], found[:, 2])
    torch.testing.assert_close(found[:, 0], torch.einsum("bchw,c->bhw", image, torch.tensor(GREY)))


def test_grey_images_change_in_brightness_and_contrast_alone(image):
    grey = image[:, :1]
    views = SimCLRViews(**{**OFF, "color": 0.5, "grey": 0.5})
    u_BD = draws(brightness=0.9, contrast=0.1, hue=0.9, saturation=0.9, grey=0.1, first=0.1)
    expected = views.view(grey.expand(-1, 3, -1, -1), SPEC, u_BD)[:, :1]
    torch.testing.assert_close(views.view(grey, GRAY_SPEC, u_BD), expected)


def test_a_blur_is_torchvisions_gaussian(image):
    large = torch.nn.functional.interpolate(image, (50, 40), mode="bilinear")
    spec = Image(channels=3, height=50, width=40, mean=(0.0,) * 3, std=(1.0,) * 3)
    found = SimCLRViews(**{**OFF, "blur": 0.5}).view(large, spec, draws(blur=0.4, sigma=0.5))
    torch.testing.assert_close(found, V.gaussian_blur(large, [5, 5], [1.05, 1.05]), atol=1e-5, rtol=1e-5)


def test_probabilities_are_those_of_the_paper(image):
    reseed(0, "test")
    flat = torch.rand(4000, 3, 1, 1).mul(0.4).add(0.3).expand(-1, -1, 4, 4)
    spec = Image(channels=3, height=4, width=4, mean=(0.0,) * 3, std=(1.0,) * 3)
    jittered = SimCLRViews(**{**OFF, "color": 0.5}).view(flat, spec, torch.rand(4000, SimCLRViews.draws))
    lost = SimCLRViews(**{**OFF, "grey": 0.2}).view(flat, spec, torch.rand(4000, SimCLRViews.draws))
    assert ((jittered - flat).abs().amax((1, 2, 3)) > 1e-4).float().mean().item() == pytest.approx(0.8, abs=0.02)
    assert ((lost[:, 0] - lost[:, 1]).abs().amax((1, 2)) < 1e-5).float().mean().item() == pytest.approx(0.2, abs=0.02)


def test_it_is_drawn_from_the_generator_for_each_image(image):
    batch = {"image": image[:1].expand(6, -1, -1, -1), "index": torch.arange(6)}
    reseed(0, "one")
    first = SimCLRViews().on_batch(batch, Reads())["image"]
    reseed(0, "one")
    again = SimCLRViews().on_batch(batch, Reads())["image"]
    assert torch.equal(first, again)
    assert (first[0] - first[1]).abs().max() > 0.01


def test_it_works_on_the_meta_device():
    on_meta = torch.zeros(2, 3, 16, 20, device="meta")
    assert SimCLRViews().view(on_meta, SPEC, torch.zeros(2, SimCLRViews.draws, device="meta")).shape == on_meta.shape


@pytest.mark.parametrize(
    ("bad", "name"),
    [({"crop": (0.5, 1.5)}, "crop"), ({"color": 2.0}, "color"), ({"grey": -0.1}, "grey"), ({"blur": 1.1}, "blur")],
)
def test_values_out_of_range_name_their_argument(bad, name):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        SimCLRViews(**bad)


def test_images_of_four_channels_have_no_known_colors():
    spec = Image(channels=4, height=8, width=8, mean=(0.0,) * 4, std=(1.0,) * 4)
    with pytest.raises(ValueError, match=r"^color and grey must be 0 for images of 4 channels"):
        SimCLRViews().check(Reads(spec))
    SimCLRViews(**OFF).check(Reads(spec))
