"""Grad-CAM and rollout against their closed forms."""

import pytest
import torch
from torch import nn

from dlx.tasks.explain import explain, grad_cam, on_grid, rollout, top_classes
from dlx.tasks.spec import Image, Label, LabeledImages
from dlx.tasks.supervised import Supervised

SPEC = LabeledImages(
    image=Image(channels=1, height=8, width=8, mean=(0.5,), std=(0.5,)), label=Label(classes=("cat", "dog", "fox"))
)
IMAGE = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Pooled(Supervised):
    """A convolution, global average pooling and a linear layer: the network that CAM is defined for."""

    def __init__(self, *, spec=SPEC):
        super().__init__(spec=spec)
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 6, 3, stride=2, padding=1)
        self.fc = nn.Linear(6, 3)

    def features(self, x):
        return self.conv(x).relu()

    def forward(self, x):
        return self.fc(self.features(x).mean((2, 3)))


class PooledByModule(Supervised):
    """The same with a trunk that is a module."""

    def __init__(self):
        super().__init__(spec=SPEC)
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 6, 3, stride=2, padding=1)
        self.features = nn.Sequential(self.conv, nn.ReLU())
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        return self.fc(self.features(x).mean((2, 3)))


class Attentive(Supervised):
    """Its attention is what it is given."""

    def __init__(self, given):
        super().__init__(spec=SPEC)
        self.given = given
        self.fc = nn.Linear(64, 3)

    def attention(self, x):
        return self.given

    def forward(self, x):
        return self.fc(x.flatten(1))


@pytest.mark.parametrize("kind", [Pooled, PooledByModule])
@pytest.mark.parametrize("frozen", [False, True])
def test_grad_cam_is_cam_over_the_number_of_cells(kind, frozen):
    """Zhou et al. 2016: CAM is the maps weighted by the class's row of the last layer; the gradient is that over hw."""
    system = kind().eval().requires_grad_(not frozen)
    maps_BChw = system.conv(IMAGE).relu().detach()
    for label in (None, torch.tensor([0, 1, 2, 0])):
        of_class = system(IMAGE).argmax(1) if label is None else label
        cam_Bhw = torch.einsum("bc,bchw->bhw", system.fc.weight[of_class], maps_BChw).relu() / 16
        torch.testing.assert_close(grad_cam(system, IMAGE, label), cam_Bhw.detach())
    assert "features" not in vars(system)
    assert all(p.grad is None for p in system.parameters())


def test_the_map_shows_where_the_class_is():
    """Two detectors, of bright and of dark; the image is bright at the top left and dark at the bottom right."""
    system = Pooled().eval()
    with torch.no_grad():
        system.conv.weight.zero_()
        system.conv.weight[0, 0, 1, 1], system.conv.weight[1, 0, 1, 1] = 1.0, -1.0
        system.conv.bias.zero_()
        system.fc.weight.zero_()
        system.fc.bias.zero_()
        system.fc.weight[0, 0] = system.fc.weight[1, 1] = 1.0
    image = torch.zeros(1, 1, 8, 8)
    image[..., :4, :4], image[..., 4:, 4:] = 1.0, -2.0
    name, map_BHW = explain(system, image)
    assert name == "Grad-CAM"
    assert system(image).argmax(1).item() == 1
    assert map_BHW.shape == (1, 8, 8)
    assert map_BHW[0, 6, 6] == 1
    assert map_BHW[0, :4].max() < 0.3
    assert map_BHW.min() == 0


def test_a_system_without_maps_has_none():
    class Flat(Pooled):
        def features(self, x):
            return self.conv(x).relu().flatten(1)

        def forward(self, x):
            return self.features(x)[:, :3]

    class Unused(Pooled):
        def forward(self, x):
            return self.fc(self.conv(x).mean((2, 3)))

    for kind in (Flat, Unused):
        assert explain(kind().eval(), IMAGE) is None
        assert "features" not in vars(kind())


def test_rollout_by_hand():
    first = torch.tensor([[0.0, 1.0], [0.5, 0.5]])
    second = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    heads = torch.stack([first, first.flip(0)]).unsqueeze(0)  # their mean is 0.25, 0.75 in both rows
    found = rollout([heads, second.expand(1, 1, 2, 2)])
    a = (torch.tensor([[0.25, 0.75], [0.25, 0.75]]) + torch.eye(2)) / 2
    b = (second + torch.eye(2)) / 2
    torch.testing.assert_close(found, (b @ a).unsqueeze(0))
    torch.testing.assert_close(found.sum(-1), torch.ones(1, 2))
    with pytest.raises(ValueError, match=r"^attention must"):
        rollout([])


@pytest.mark.parametrize(
    ("tokens", "size", "shape"),
    [(4, (8, 8), (2, 2)), (5, (8, 8), (2, 2)), (6, (8, 8), (2, 2)), (8, (8, 16), (2, 4)), (9, (16, 8), (4, 2)),
     (7, (8, 8), None), (1, (8, 16), None)],
)  # fmt: skip
def test_tokens_are_put_on_the_images_grid(tokens, size, shape):
    reached = torch.zeros(1, tokens, tokens)
    reached[:, 0] = torch.arange(tokens)
    found = on_grid(reached, size)
    if shape is None:
        assert found is None
        return
    assert found.shape == (1, *shape)
    extra = tokens - shape[0] * shape[1]
    row = torch.arange(extra, tokens) / (1 if extra else tokens)
    torch.testing.assert_close(found.flatten(), row)


def test_attention_that_looks_at_one_patch_lights_it():
    """A class token and 4 x 4 patches; every token attends to patch (1, 2)."""
    attention = torch.zeros(1, 2, 17, 17)
    attention[..., 1 + 4 * 1 + 2] = 1
    name, map_BHW = explain(Attentive([attention, attention]), IMAGE[:1])
    assert name == "attention rollout"
    assert divmod(int(map_BHW.argmax()), 8) in {(2, 4), (2, 5), (3, 4), (3, 5)}
    assert map_BHW[0, 6:].max() == 0


def test_top_classes_come_in_order():
    top = top_classes(SPEC.label.classes, torch.tensor([0.2, 0.5, 0.3]), 2)
    assert list(top) == ["dog", "fox"]
    assert top["dog"] == 0.5
    assert len(top_classes(SPEC.label.classes, torch.tensor([0.2, 0.5, 0.3]), 5)) == 3
