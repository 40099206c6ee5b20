"""Every classifier of timm (pytorch-image-models) by name, more than a thousand. It is an extra: dlx[vision].

Nothing is ever downloaded: weights come from a local file or are new. Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlx.models.vision.pretrained import check_forward, check_known, check_plain, load_weights, refused
from dlx.tasks.spec import LabeledImages
from dlx.tasks.supervised import Supervised


class Timm(Supervised):
    """arch: a name of `timm.list_models`, without a tag.

    weights: path of a local file with a state dict of that architecture, .safetensors or .pth. A head for other classes
    and a first convolution for other channels stay new, and a warning says so. Classes, channels and, where the
    architecture has a fixed one, the size follow the data.
    """

    def __init__(
        self, *, spec: LabeledImages, arch: str = "resnet18", weights: Path | None = None, loss: str | None = None
    ) -> None:
        super().__init__(spec=spec, loss=loss)
        check_plain(arch)
        try:
            import timm
        except ImportError as error:
            raise ValueError(f"arch {arch} needs timm: pip install 'dlx[vision]'") from error
        check_known(arch, timm.list_models(), "timm")
        with torch.device("meta"):
            check_forward(self._build(spec, arch), spec.image.shape, arch)
        self.net = self._build(spec, arch)
        if weights is not None:
            ends = self._ends("classifier")
            replaceable = ends if spec.image.channels == 3 else [*self._ends("first_conv"), *ends]
            load_weights(self.net, weights, arch=arch, replaceable=replaceable)

    def _build(self, spec: LabeledImages, arch: str) -> nn.Module:
        import timm

        options: dict[str, Any] = {"num_classes": self.num_outputs, "in_chans": spec.image.channels}
        config = timm.get_pretrained_cfg(arch)
        if config is not None and config.fixed_input_size:
            options["img_size"] = (spec.image.height, spec.image.width)
        try:
            return timm.create_model(arch, pretrained=False, **options)
        except (AssertionError, RuntimeError, ValueError) as error:  # transformers check the size when they are made
            raise refused(arch, spec.image.shape, error) from error

    def _ends(self, key: str) -> list[str]:
        """Names of the layers that timm's configuration calls `classifier` or `first_conv`: one, several or none."""
        config: Any = getattr(self.net, "pretrained_cfg", None) or {}
        named = config.get(key) or ()
        return [named] if isinstance(named, str) else list(named)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.net(x_BCHW)
