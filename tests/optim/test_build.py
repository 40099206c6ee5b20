import torch
from torch import nn

from dlx.data.digits import Digits
from dlx.models.vision.resnet import ResNet
from dlx.optim.build import ParamGroups, build_optimizers


def make(settings, params):
    settings = {name: value for name, value in settings.items() if name != "_target_"}
    return torch.optim.AdamW(params, **settings)


def test_norms_and_biases_are_spared_from_decay():
    system = ResNet(spec=Digits().spec)
    (optimizer,) = build_optimizers(
        system, system.objectives(), {"lr": 0.1, "weight_decay": 0.01}, ParamGroups(no_decay=("norm", "bias")), make
    )
    decayed, spared = optimizer.param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.01, 0.0)
    assert {p.dim() for p in decayed["params"]} == {2, 4}
    assert {p.dim() for p in spared["params"]} == {1}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(system.parameters()))


def test_one_kernel_where_it_was_left_open():
    system = nn.Linear(2, 2)
    system.objectives = lambda: []
    from dlx.tasks.system import Objective

    objectives = [Objective("loss", list(system.parameters()))]
    for asked, expected in ((None, True), (False, False)):
        common = {"lr": 0.1, "fused": asked, "foreach": None}
        (optimizer,) = build_optimizers(system, objectives, common, ParamGroups(), make)
        assert optimizer.defaults["fused"] is expected


def test_a_player_has_its_own_settings():
    grouping = ParamGroups(players={"critic": {"lr": 1.0}, "other": {"_target_": "torch.optim.SGD"}})
    common = {"_target_": "torch.optim.Adam", "lr": 0.1, "eps": 1e-8}
    assert grouping.settings(common, "critic") == {"_target_": "torch.optim.Adam", "lr": 1.0, "eps": 1e-8}
    assert grouping.settings(common, "other") == {"_target_": "torch.optim.SGD"}
    assert grouping.settings(common, "generator") == common
