"""Explains a classifier's prediction by a map over the image.

Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) where the system has a trunk `features(x)` of maps [B, C, h, w];
attention rollout (Abnar and Zuidema 2020, arXiv:2005.00928) where it has `attention(x)`, a list with the attention of
each block, [B, heads, N, N]: queries in rows, each row a distribution. A class token, where there is one, comes first.
Shapes: B batch, C channels, H height, W width, K classes, N tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.runs.draw import drawable, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlx.tasks.spec import Image
    from dlx.tasks.system import System


def explain(system: System, image_BCHW: Tensor) -> tuple[str, Tensor] | None:
    """The method's name and maps [B, H, W] in [0, 1]; None for a system that has neither maps nor attention."""
    size = (image_BCHW.shape[2], image_BCHW.shape[3])
    name, map_Bhw = "attention rollout", None
    attention: Callable[[Tensor], list[Tensor]] | None = getattr(system, "attention", None)
    if attention is not None:
        with torch.no_grad():
            map_Bhw = on_grid(rollout(attention(image_BCHW)), size)
        if map_Bhw is not None:  # every patch is reached a little: what counts is by how much more
            map_Bhw = map_Bhw - map_Bhw.amin((1, 2), keepdim=True)
    if map_Bhw is None:
        name, map_Bhw = "Grad-CAM", grad_cam(system, image_BCHW)
    if map_Bhw is None:
        return None
    map_BHW = F.interpolate(map_Bhw.unsqueeze(1).float(), size, mode="bilinear").squeeze(1)
    return name, map_BHW / map_BHW.amax((1, 2), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)


def grad_cam(system: System, image_BCHW: Tensor, label_B: Tensor | None = None) -> Tensor | None:
    """Maps [B, h, w], not scaled: ReLU of the trunk's maps, weighted by the mean gradient of the class's logit.

    label_B: which class; the top one where it is not given. None where `features` gives no maps, or is no part of the
    forward. The system should be in eval mode: in batch norm's training mode images explain each other.
    """
    if not hasattr(system, "features"):
        return None
    with torch.enable_grad(), _watched(system) as seen:
        logits_BK = system(image_BCHW)
    if not seen or seen[-1].dim() != 4:
        return None
    label_B = logits_BK.argmax(1) if label_B is None else label_B
    with torch.enable_grad():
        logit = logits_BK.gather(1, label_B.unsqueeze(1)).sum()  # images do not mix, so one gradient serves all
    (slope_BChw,) = torch.autograd.grad(logit, seen[-1])
    return torch.einsum("bc,bchw->bhw", slope_BChw.mean((2, 3)), seen[-1].detach()).relu()


@contextmanager
def _watched(system: System) -> Iterator[list[Tensor]]:
    """Holds what `system.features` gives while it runs, a method or a module, as part of the graph."""
    seen: list[Tensor] = []

    def hold(output: Tensor) -> Tensor:
        seen.append(output if output.requires_grad else output.requires_grad_())  # frozen trunks too
        return output

    trunk: Any = system.features
    if isinstance(trunk, nn.Module):
        with trunk.register_forward_hook(lambda _module, _inputs, output: hold(output)):
            yield seen
    else:
        vars(system)["features"] = lambda *inputs: hold(trunk(*inputs))  # hides the class's method, on this object
        try:
            yield seen
        finally:
            del vars(system)["features"]


def rollout(attention: Sequence[Tensor]) -> Tensor:
    """How much each input token (columns) reached each output token (rows), [B, N, N]; rows sum to 1.

    Heads are averaged, the residual connection counts as attention to oneself, and the blocks are multiplied.
    """
    total_BNN = None
    for block_BHNN in attention:
        step_BNN = block_BHNN.float().mean(1)
        step_BNN = step_BNN + torch.eye(step_BNN.shape[-1], device=step_BNN.device)
        step_BNN = step_BNN / step_BNN.sum(-1, keepdim=True)
        total_BNN = step_BNN if total_BNN is None else step_BNN @ total_BNN
    if total_BNN is None:
        raise ValueError("attention must have at least one block, got none")
    return total_BNN


def on_grid(rollout_BNN: Tensor, size: tuple[int, int]) -> Tensor | None:
    """What reached the class token, on the grid of patches, [B, h, w]; without a class token, the mean over tokens.

    size: (height, width) of the image, whose shape the grid has. None where the tokens are no such grid, even without
    a class token and a second one (DeiT's).
    """
    tokens = rollout_BNN.shape[-1]
    for extra in range(min(3, tokens)):
        count = tokens - extra
        height = round((count * size[0] / size[1]) ** 0.5)
        if height and count == height * (count // height) and height * size[1] == count // height * size[0]:
            reached_BN = rollout_BNN[:, 0] if extra else rollout_BNN.mean(1)
            return reached_BN[:, extra:].reshape(len(reached_BN), height, -1)
    return None


def top_classes(classes: Sequence[str], probability_K: Tensor, count: int) -> dict[str, float]:
    """The most probable classes, the first one first."""
    probability, label = probability_K.topk(min(count, len(classes)))
    return dict(zip([classes[index] for index in label.tolist()], probability.tolist(), strict=True))


def draw(
    image: Image,
    classes: Sequence[str],
    image_CHW: Tensor,
    probability_K: Tensor,
    seen: tuple[str, Tensor] | None,
    title: str = "",
) -> Figure:
    """The image as the network sees it, the map over it where there is one (`seen`: its name, [H, W]), the bars."""
    pixels_HWC = image.denormalize(image_CHW).clamp(0, 1).cpu().permute(1, 2, 0).squeeze(-1).numpy()
    ratios = [1, 1, 1.2] if seen else [1, 1.2]
    figure, panels = subplots(1, len(ratios), size=(9 if seen else 6.5, 3.2), width_ratios=ratios)
    for axes in panels[:-1]:
        axes.imshow(pixels_HWC, cmap="gray", vmin=0, vmax=1)
        axes.set_axis_off()
    panels[0].set_title(drawable(title), fontsize=9)
    top = top_classes(classes, probability_K, 5)
    names = [drawable(name if len(name) <= 18 else f"{name[:17]}…") for name in top]
    if seen:
        name, map_HW = seen
        heat_HW = map_HW.cpu().numpy()  # clear where it is low: there the image stays as it is
        panels[1].imshow(heat_HW, cmap="autumn_r", vmin=0, vmax=1, alpha=0.75 * heat_HW, interpolation="bilinear")
        panels[1].set_title(f"{name}: {names[0]}", fontsize=9)
    bars = panels[-1]
    rows = range(len(top))
    drawn = bars.barh(rows, list(top.values()), color=["tab:blue", *["0.75"] * (len(top) - 1)])
    bars.bar_label(drawn, [f"{value:.1%}" for value in top.values()], padding=3, fontsize=9)
    bars.set_yticks(rows, names)
    bars.set(xlim=(0, 1.2), xticks=[0, 0.5, 1], xlabel="probability")
    bars.invert_yaxis()
    bars.set_title("most probable classes", fontsize=9)
    bars.spines[["top", "right"]].set_visible(False)
    return figure
