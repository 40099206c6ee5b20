"""What PixelCNN, its gated form, the Row LSTM and the Diagonal BiLSTM see of the pixels drawn before one
(van den Oord et al. 2016, arXiv:1601.06759, figure 4; the blind spot: 1606.05328, figure 1).

It is measured: the pixels in which the gradient of the logit in the middle is not zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dlx.claims.claim import Claim, Measured, Runs, Verdict
from dlx.config import Config, build, compose
from dlx.config.checks import at_least
from dlx.random import reseed
from dlx.tasks.spec import Image, Images

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlx.tasks.density import Autoregressive

NETWORKS = {
    "PixelCNN": ["model=pixel_cnn"],
    "gated PixelCNN": ["model=pixel_cnn", "model.gated=true"],
    "Row LSTM": ["model=pixel_rnn"],
    "Diagonal BiLSTM": ["model=pixel_rnn", "model.layer=diagonal"],
}


class ReceptiveFields(Claim):
    """side: of the square images, odd. cnn_depth: layers after the first of both PixelCNNs; the LSTMs have one.
    hidden: features. images: random ones, over which gradients are summed, for a ReLU hides some."""

    claim = "Diagonal BiLSTM and gated PixelCNN see all of the past, a Row LSTM a triangle; PixelCNN has a blind spot"
    size = (12.5, 3.9)

    def __init__(self, *, side: int = 15, cnn_depth: int = 10, hidden: int = 16, images: int = 8) -> None:
        at_least(1, cnn_depth=cnn_depth, hidden=hidden, images=images)
        if side < 5 or side % 2 == 0:
            raise ValueError(f"side must be odd and at least 5, got {side}")
        self.side, self.cnn_depth, self.hidden, self.images = side, cnn_depth, hidden, images

    def measure(self, base: Config, runs: Runs) -> Measured:
        image = Image(channels=1, height=self.side, width=self.side, mean=(0.0,), std=(1.0,), scale=1.0)
        found: Measured = {}
        for name, words in NETWORKS.items():
            depth = self.cnn_depth if "PixelCNN" in name else 1
            sizes = [f"model.hidden={self.hidden}", f"model.depth={depth}", "model.first_kernel=3"]
            reseed(base["seed"], "receptive_fields")
            system = build(compose([*words, *sizes]), "model", spec=Images(image=image))
            map_HW = gradient_map(system, self.images)
            past = map_HW.flatten()[: map_HW.numel() // 2]
            future = map_HW.flatten()[map_HW.numel() // 2 :]
            found[name] = {"past": (past > 0).float().mean().item(), "future": int((future > 0).sum())}
            found[name] |= {"map": map_HW.tolist(), "depth": depth}
        return found

    def draw(self, measured: Measured, figure: Figure) -> None:
        from matplotlib.colors import LogNorm
        from matplotlib.patches import Rectangle

        figure.suptitle(
            "|d logit of the red pixel / d pixel|; hatched: drawn before it, not seen; white: drawn after it"
        )
        axes_row = figure.subplots(1, len(measured))
        for axes, (name, found) in zip(axes_row, measured.items(), strict=True):
            seen_HW = torch.tensor(found["map"])
            seen_HW = seen_HW / seen_HW.max()
            image = axes.imshow(seen_HW.where(seen_HW > 0, torch.nan), norm=LogNorm(1e-6, 1, clip=True), cmap="viridis")
            middle = self.side // 2
            for row in range(middle + 1):
                for column in range(self.side):
                    corner = (column - 0.5, row - 0.5)
                    if (row, column) == (middle, middle):
                        axes.add_patch(Rectangle(corner, 1, 1, color="tab:red", linewidth=0))
                    elif (row, column) < (middle, middle) and found["map"][row][column] == 0:
                        unseen = Rectangle(corner, 1, 1, fill=False, hatch="////", edgecolor="0.6", linewidth=0)
                        axes.add_patch(unseen)
            layers = f"{found['depth'] + 1} layers" if "PixelCNN" in name else f"{found['depth']} LSTM layer"
            axes.set_title(f"{name}\n{layers}: {found['past']:.0%} of the past", fontsize=10)
            axes.set(xticks=[], yticks=[])
            axes.grid(visible=False)
        figure.colorbar(image, ax=list(axes_row), label="gradient, over its largest", shrink=0.7)

    def verdict(self, measured: Measured) -> Verdict:
        """It holds where none sees itself or what is to come, and the two that should see all of the past do, and the
        other two do not."""
        whole = {name for name, found in measured.items() if found["past"] == 1}
        causal = all(found["future"] == 0 for found in measured.values())
        each = ", ".join(f"{name} {found['past']:.1%}" for name, found in measured.items())
        future = "none sees what is to come" if causal else "some see what is to come"
        return Verdict(causal and whole == {"gated PixelCNN", "Diagonal BiLSTM"}, f"of the past: {each}; {future}")


def gradient_map(system: Autoregressive, images: int) -> Tensor:
    """|d logit of the pixel in the middle / d pixel| [H, W], summed over random binary images."""
    H, W = system.input.height, system.input.width
    x_BCHW = torch.randint(2, (images, 1, H, W)).float().requires_grad_()
    logit_B = system.logits(x_BCHW)[:, H * W // 2, 0]
    (gradient_BCHW,) = torch.autograd.grad(logit_B.sum(), x_BCHW)
    return gradient_BCHW.detach().abs().sum((0, 1))
