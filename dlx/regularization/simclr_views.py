"""SimCLR's augmentation (Chen et al. 2020, arXiv:2002.05709, appendix A): random crops, mirrors, color and blur.

Two such views of an image keep what is in it and little else. All that is drawn is a row of uniform numbers for each
image, so that a view is a function of them. Shapes: B batch, C channels, H height, W width, D draws, K taps of a blur.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dlx.config import checks
from dlx.regularization.regularizer import Regularizer
from dlx.tasks.spec import Attributes, Image, Label
from dlx.tasks.system import Batch, System

GREY = (0.299, 0.587, 0.114)  # what red, green and blue add to a grey value
JITTERED = 0.8  # how often colors change
CHANGES = 4  # brightness, contrast, saturation, hue
SIGMA = (0.1, 2.0)  # of a blur, in pixels
KERNEL = 0.1  # of a blur, as a share of the image's height


class SimCLRViews(Regularizer):
    """In this order; what is null, false or 0 is left out.

    crop: range of shares of the image's area; such a window, of an aspect ratio from 3/4 to 4/3, is scaled to the
    image's size. flip: mirror left-right, with probability 1/2. color: strength s of the color jitter, which 80 % of
    the images get: factors of brightness, contrast and saturation from 1 - 0.8 s to 1 + 0.8 s, at least 0, and a turn
    of the hue by up to 0.2 s of the circle either way, in random order. grey: the probability to lose color. blur: the
    probability of a Gaussian blur of 0.1 to 2 pixels, its kernel a tenth of the height.

    The four changes of color are one affine map of red, green and blue, and values are cut to [0, 1] once at the end;
    the hue turns about the grey axis (in YIQ). The reference cuts after each, and turns the hue in HSV.
    """

    order = 0
    needs = (Image,)
    keeps_inputs = (Image, Label, Attributes)
    keeps_targets = (Label, Attributes)

    draws = 17
    """Uniform numbers of an image."""

    def __init__(
        self,
        *,
        crop: tuple[float, float] | None = (0.08, 1.0),
        flip: bool = True,
        color: float = 1.0,
        grey: float = 0.2,
        blur: float = 0.5,
    ) -> None:
        if crop is not None and not 0 < crop[0] <= crop[1] <= 1:
            raise ValueError(f"crop must be a range within (0, 1] such as [0.08, 1], got {list(crop)}")
        checks.between("[0, 1]", color=color, grey=grey, blur=blur)
        self.crop, self.flip, self.color, self.grey, self.blur = crop, flip, color, grey, blur

    def check(self, system: System) -> None:
        super().check(system)
        for image in system.spec.of_kind(Image).values():
            self.check_image(image)

    def check_image(self, image: Image) -> None:
        """Raises ValueError for images whose colors are not known."""
        if (self.color or self.grey) and image.channels not in (1, 3):
            raise ValueError(f"color and grey must be 0 for images of {image.channels} channels: they are of 1 or 3")

    def on_batch(self, batch: Batch, system: System) -> Batch:
        for name, spec in system.spec.of_kind(Image).items():
            image = batch[name]
            batch = {**batch, name: self.view(image, spec, torch.rand(len(image), self.draws, device=image.device))}
        return batch

    def view(self, image: Tensor, spec: Image, u_BD: Tensor) -> Tensor:
        """Views of normalized images [B, C, H, W], normalized. u_BD: uniform numbers in [0, 1), [B, draws]."""
        window_B4, mirror_B, color_B10, blur_B2 = u_BD[:, :4], u_BD[:, 4], u_BD[:, 5:15], u_BD[:, 15:17]
        x_BCHW = spec.denormalize(image)
        if self.crop or self.flip:
            x_BCHW = self._windows(x_BCHW, window_B4, mirror_B)
        if self.color or self.grey:
            x_BCHW = self._recolored(x_BCHW, color_B10)
        if self.blur:
            x_BCHW = self._blurred(x_BCHW, blur_B2)
        return spec.normalize(x_BCHW.clamp(0, 1).mul(spec.scale))

    def _windows(self, x_BCHW: Tensor, u_B4: Tensor, mirror_B: Tensor) -> Tensor:
        """Windows of the images, some mirrored, scaled to the image's size."""
        area_B, aspect_B, y_B, x_B = u_B4.unbind(1)
        low, high = self.crop or (1.0, 1.0)
        area_B = low + (high - low) * area_B
        # An aspect ratio of pixels; with an area near 1 no window is wide or high: it is cut to the image.
        aspect_B = torch.exp((2 * aspect_B - 1) * math.log(4 / 3)) if self.crop else torch.ones_like(area_B)
        H, W = x_BCHW.shape[-2:]
        width_B = (area_B * aspect_B * H / W).sqrt().clamp(max=1)
        height_B = (area_B / aspect_B * W / H).sqrt().clamp(max=1)
        if not self.crop:
            width_B, height_B = torch.ones_like(area_B), torch.ones_like(area_B)
        side_B = torch.where(mirror_B < 0.5, -1.0, 1.0) if self.flip else torch.ones_like(mirror_B)
        zero_B = torch.zeros_like(width_B)
        rows = [
            torch.stack([side_B * width_B, zero_B, (2 * x_B - 1) * (1 - width_B)], 1),
            torch.stack([zero_B, height_B, (2 * y_B - 1) * (1 - height_B)], 1),
        ]
        grid = F.affine_grid(torch.stack(rows, 1), list(x_BCHW.shape), align_corners=False)
        return F.grid_sample(x_BCHW, grid, mode="bicubic", padding_mode="border", align_corners=False).clamp(0, 1)

    def _recolored(self, x_BCHW: Tensor, u_B10: Tensor) -> Tensor:
        """Images after the jitter and the loss of color. u: whether it is jittered, four strengths, four ranks that say
        the order, and whether it becomes grey."""
        C = x_BCHW.shape[1]
        grey_3 = x_BCHW.new_tensor(GREY)
        matrix_B33, offset_B3 = self._color_map(x_BCHW.mean((2, 3)).expand(-1, 3), u_B10, grey_3)
        if self.grey:
            to_grey_33 = grey_3.expand(3, 3)
            lost_B11 = (u_B10[:, 9] < self.grey).view(-1, 1, 1)
            matrix_B33 = torch.where(lost_B11, to_grey_33 @ matrix_B33, matrix_B33)
            offset_B3 = torch.where(lost_B11[:, 0], offset_B3 @ to_grey_33.T, offset_B3)
        if C == 1:  # of equal red, green and blue, which stay equal
            return x_BCHW * matrix_B33[:, :1].sum(2)[..., None, None] + offset_B3[:, :1, None, None]
        x_B3P = torch.baddbmm(offset_B3.unsqueeze(2), matrix_B33, x_BCHW.flatten(2))
        return x_B3P.view(x_BCHW.shape).clamp(0, 1)

    def _color_map(self, mean_B3: Tensor, u_B10: Tensor, grey_3: Tensor) -> tuple[Tensor, Tensor]:
        """The jitter as a map M x + o of colors: [B, 3, 3] and [B, 3]. mean_B3: the mean color of each image, which
        the contrast is about."""
        strength_B = self.color * (u_B10[:, 0] < JITTERED).to(mean_B3.dtype)
        change_B4 = (2 * u_B10[:, 1:5] - 1) * strength_B.unsqueeze(1)
        factor_B3, turn_B = (1 + 0.8 * change_B4[:, :3]).clamp(min=0), 0.2 * change_B4[:, 3] * 2 * math.pi
        eye_33 = torch.eye(3, device=mean_B3.device)
        brightness, contrast, saturation = (factor_B3[:, n, None, None] for n in range(3))
        of_grey = (1 - saturation) * grey_3.expand(3, 3)
        matrix_B433 = torch.stack(
            [brightness * eye_33, contrast * eye_33, saturation * eye_33 + of_grey, _hue_map(turn_B, mean_B3)], 1
        )
        order_B4, rows_B = u_B10[:, 5:9].argsort(1), torch.arange(len(mean_B3), device=mean_B3.device)
        matrix_B33, offset_B3 = eye_33.expand(len(mean_B3), 3, 3), torch.zeros_like(mean_B3)
        for place in range(CHANGES):
            own_B = order_B4[:, place]
            map_B33 = matrix_B433[rows_B, own_B]
            # Contrast adds a share of the mean grey value of the image as it is now.
            grey_B = ((matrix_B33 @ mean_B3.unsqueeze(2)).squeeze(2) + offset_B3) @ grey_3
            added_B = torch.where(own_B == 1, (1 - factor_B3[:, 1]) * grey_B, 0.0)
            matrix_B33 = map_B33 @ matrix_B33
            offset_B3 = (map_B33 @ offset_B3.unsqueeze(2)).squeeze(2) + added_B.unsqueeze(1)
        return matrix_B33, offset_B3

    def _blurred(self, x_BCHW: Tensor, u_B2: Tensor) -> Tensor:
        """Half of the images (`blur` of them) after a Gaussian blur, rows and columns in turn."""
        B, C, H, W = x_BCHW.shape
        reach = min(max(1, int(KERNEL * H) // 2), H - 1, W - 1)
        if reach < 1:
            return x_BCHW
        place_K = torch.arange(-reach, reach + 1, device=x_BCHW.device)
        sigma_B1 = (SIGMA[0] + (SIGMA[1] - SIGMA[0]) * u_B2[:, 1]).unsqueeze(1)
        weight_BK = torch.softmax(-place_K.square() / (2 * sigma_B1.square()), 1)
        weight_BK = torch.where(u_B2[:, :1] < self.blur, weight_BK, (place_K == 0).to(weight_BK.dtype))
        weight = weight_BK.repeat_interleave(C, 0)
        x = F.pad(x_BCHW.reshape(1, B * C, H, W), [reach] * 4, mode="reflect")
        x = F.conv2d(x, weight[:, None, :, None], groups=B * C)
        return F.conv2d(x, weight[:, None, None, :], groups=B * C).view(B, C, H, W)


def _hue_map(turn_B: Tensor, like: Tensor) -> Tensor:
    """Maps of red, green and blue, [B, 3, 3], that turn I and Q of YIQ by an angle and keep Y, the grey value."""
    to_yiq_33 = like.new_tensor([GREY, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)])
    zero_B, one_B, cos_B, sin_B = torch.zeros_like(turn_B), torch.ones_like(turn_B), turn_B.cos(), turn_B.sin()
    rows = [(one_B, zero_B, zero_B), (zero_B, cos_B, sin_B), (zero_B, -sin_B, cos_B)]  # red to yellow
    turned_B33 = torch.stack([torch.stack(row, 1) for row in rows], 1)
    return torch.linalg.inv(to_yiq_33) @ turned_B33 @ to_yiq_33
