"""Every classifier of torchvision by name, such as resnet18, vgg16_bn, convnext_tiny or vit_b_16.

Nothing is ever downloaded: weights come from a local file or are new. Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from dlx.models.vision.pretrained import check_forward, check_known, check_plain, load_weights, refused
from dlx.tasks.spec import LabeledImages
from dlx.tasks.supervised import Supervised

# These return a tuple with the logits of auxiliary heads in training, and warn unless told how to initialize.
AUXILIARY = ("googlenet", "inception_v3")


class Torchvision(Supervised):
    """arch: a name of `torchvision.models.list_models`, classifiers only.

    weights: path of a local file with a state dict of that architecture, .safetensors or .pth. A head for other classes
    and a first convolution for other channels stay new, and a warning says so. Classes and channels follow the data.
    """

    def __init__(
        self, *, spec: LabeledImages, arch: str = "resnet18", weights: Path | None = None, loss: str | None = None
    ) -> None:
        super().__init__(spec=spec, loss=loss)
        from torchvision import models

        check_plain(arch)
        check_known(arch, models.list_models(module=models), "torchvision")
        if arch.startswith("vit_") and spec.image.height != spec.image.width:
            raise ValueError(f"arch {arch} needs square images, got {spec.image.height}x{spec.image.width}")
        # Only words for what fails: it says 224 of Swin too, which takes any size.
        smallest = max(models.get_model_weights(arch).DEFAULT.meta["min_size"])
        with torch.device("meta"):
            check_forward(self._build(spec, arch), spec.image.shape, arch, smallest)
        self.net = self._build(spec, arch)
        if weights is not None:
            first, head = self._ends()
            replaceable = [head] if spec.image.channels == 3 else [first, head]
            load_weights(self.net, weights, arch=arch, replaceable=replaceable)

    def _build(self, spec: LabeledImages, arch: str) -> nn.Module:
        from torchvision import models

        options: dict[str, object] = {"num_classes": self.num_outputs}
        if arch in AUXILIARY:
            options |= {"aux_logits": False, "init_weights": False}
        if arch.startswith("vit_"):
            options["image_size"] = spec.image.height
        if arch.startswith("maxvit_"):
            options["input_size"] = (spec.image.height, spec.image.width)
        # RegNet computes its widths with tensors, which have no values on the meta device.
        device = torch.get_default_device()
        try:
            with torch.device("cpu" if arch.startswith("regnet_") else device):
                net = models.get_model(arch, weights=None, **options).to(device)
        except (AssertionError, RuntimeError, ValueError) as error:  # transformers check the size when they are made
            raise refused(arch, spec.image.shape, error) from error
        if spec.image.channels != 3:
            name, old = next((n, m) for n, m in net.named_modules() if isinstance(m, nn.Conv2d))
            new = nn.Conv2d(
                spec.image.channels,
                old.out_channels,
                old.kernel_size,  # type: ignore[arg-type]
                old.stride,  # type: ignore[arg-type]
                old.padding,  # type: ignore[arg-type]
                bias=old.bias is not None,
            )
            net.set_submodule(name, new)
        return net

    def _ends(self) -> tuple[str, str]:
        """Names of the first convolution, and of the last layer, which gives the logits."""
        layers = [name for name, module in self.net.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
        return layers[0], layers[-1]

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.net(x_BCHW)
