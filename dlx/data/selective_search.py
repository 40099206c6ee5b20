"""Selective search (Uijlings et al. 2013): boxes around the regions of a hierarchy, from small segments to the image.

An image is cut into segments of similar colour (Felzenszwalb and Huttenlocher 2004, by scikit-image). Then the two
neighbours that are most alike are merged, again and again until one region is left; every region on the way gives a
box. Objects differ in what holds them together, so the search runs once for each colour space, scale and set of
similarities, and their boxes are joined.
Shapes: R regions, B histogram bins, M boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from dlx.config import checks
from dlx.config.extras import require
from dlx.data.proposals import Proposer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

SPACES = ("hsv", "lab", "rgb", "rgi", "hue", "gray")
SIMILARITIES = ("colour", "texture", "size", "fill")
COLOUR_BINS, TEXTURE_BINS, DIRECTIONS = 25, 10, 8


class SelectiveSearch(Proposer):
    """Regions of a hierarchy of segments. The defaults suit images of 32 to 200 pixels.

    R-CNN's fast mode is `width=500 scales=[50,100] min_size=null least=20 most=2000`. The paper's quality mode has
    `spaces=[hsv,lab,rgi,hue,gray] scales=[50,100,150,300] similarities=[colour+texture+size+fill,texture+size+fill,
    fill,size]`: 80 hierarchies.

    spaces: of colours: hsv, lab, rgb, rgi (red and green as shares of the sum, and the intensity), hue and gray.
    scales: k of the segmentation, in levels of 0 to 255; larger ones prefer larger segments. min_size: pixels of a
    segment at least; None is k. sigma: of the blur before, in pixels. similarities: sets of colour, texture, size and
    fill, each a sum. width: images are first scaled to it, None leaves them as they are. least: boxes that are
    narrower or lower are left out, in pixels of the scaled image. most: boxes of an image. order_seed: draws the order.
    """

    slow = True

    def __init__(
        self,
        *,
        spaces: Sequence[str] = ("hsv", "lab"),
        scales: Sequence[float] = (50.0, 100.0),
        min_size: int | None = 20,
        sigma: float = 0.8,
        similarities: Sequence[str] = ("colour+texture+size+fill", "texture+size+fill"),
        width: int | None = None,
        least: int = 5,
        most: int = 300,
        order_seed: int = 0,
    ) -> None:
        for space in spaces or ("none",):
            checks.one_of(SPACES, spaces=space)
        sets = [tuple(one.split("+")) for one in similarities]
        for name in (name for one in sets or [("none",)] for name in one):
            checks.one_of(SIMILARITIES, similarities=name)
        checks.above(0, scales=min(scales, default=0))
        checks.at_least(1, min_size=min_size, least=least, most=most)
        checks.at_least(0, sigma=sigma, order_seed=order_seed)
        checks.at_least(8, width=width)
        require("proposals selective_search", "detection", "skimage")
        self.spaces, self.scales, self.min_size, self.sigma = spaces, scales, min_size, sigma
        self.similarities, self.width, self.least, self.most = similarities, width, least, most
        self.order_seed = order_seed

    def load(self) -> None:
        for module in ("skimage.color", "skimage.segmentation", "scipy.ndimage"):  # 0.5 s
            import_module(module)

    def __call__(self, image_HWC: Array) -> Array:
        height, width = image_HWC.shape[:2]
        image_HW3 = np.repeat(image_HWC, 3, axis=2) if image_HWC.shape[2] == 1 else image_HWC[..., :3]
        if self.width is not None and self.width != width:
            image_HW3 = _resized(image_HW3, self.width)
        boxes_M4 = self._ordered(self._hierarchies(image_HW3))
        sides_M2 = boxes_M4[:, 2:] - boxes_M4[:, :2]
        boxes_M4 = boxes_M4[(sides_M2 >= self.least).all(1)]
        if image_HW3.shape[:2] != (height, width):
            share_2 = np.array([width / image_HW3.shape[1], height / image_HW3.shape[0]])
            low_M2, high_M2 = np.floor(boxes_M4[:, :2] * share_2), np.ceil(boxes_M4[:, 2:] * share_2)
            boxes_M4 = np.concatenate([low_M2, np.minimum(high_M2, (width, height))], 1).astype(np.int64)
        return _first_of_each(boxes_M4)[: self.most].astype(np.float32)

    def segments(self, space_HWC: Array, scale: float) -> Array:
        """The segments of an image in [0, 1], int64 [H, W], numbered from 0."""
        from skimage.segmentation import felzenszwalb

        least = max(1, round(scale)) if self.min_size is None else self.min_size
        return felzenszwalb(space_HWC, scale=scale, sigma=self.sigma, min_size=least)

    def _hierarchies(self, image_HW3: Array) -> list[Array]:
        """Boxes int64 of each hierarchy, the whole image first."""
        found = []
        for space in self.spaces:
            space_HWC = CONVERSIONS[space](image_HW3)
            colour_HWC, texture_HWD = _colour_bins(space_HWC), _texture_bins(space_HWC)
            for scale in self.scales:
                segment_HW = self.segments(space_HWC, scale)
                colour_RB = _histograms(segment_HW, colour_HWC, COLOUR_BINS)
                texture_RB = _histograms(segment_HW, texture_HWD, TEXTURE_BINS)
                for names in self.similarities:
                    parts = names.split("+")
                    bins = [x for name, x in (("colour", colour_RB), ("texture", texture_RB)) if name in parts]
                    histogram_RB = np.concatenate([*bins, np.zeros((len(colour_RB), 0), np.float32)], 1)
                    regions = _regions(segment_HW, histogram_RB, "size" in parts, "fill" in parts)
                    found.append(regions.grouped()[::-1])
        return found

    def _ordered(self, hierarchies: list[Array]) -> Array:
        """Large regions tend to come first, yet not all of one hierarchy before another's: the number of a region from
        the top, times a draw."""
        rng = np.random.Generator(np.random.PCG64(self.order_seed))
        rank_M = np.concatenate([rng.random(len(boxes)) * np.arange(1, len(boxes) + 1) for boxes in hierarchies])
        return np.concatenate(hierarchies)[rank_M.argsort(kind="stable")]


@dataclass
class _Regions:
    """The regions that are left, in arrays of one row each; a region that was merged into another keeps its row."""

    size_R: Array  # pixels
    box_R4: Array
    histogram_RB: Array
    near_RR: Array
    pixels: int  # of the image
    by_size: bool
    by_fill: bool

    def similarity(self, a: Array, b: Array) -> Array:
        """Of pairs of regions, each part of it in [0, 1]."""
        total = np.minimum(self.histogram_RB[a], self.histogram_RB[b]).sum(-1)
        both = self.size_R[a] + self.size_R[b]
        if self.by_size:
            total = total + (1 - both / self.pixels)
        if self.by_fill:
            low = np.minimum(self.box_R4[a, :2], self.box_R4[b, :2])
            high = np.maximum(self.box_R4[a, 2:], self.box_R4[b, 2:])
            total = total + (1 - ((high - low).prod(-1) - both) / self.pixels)
        return total

    def grouped(self) -> Array:
        """Boxes of all regions of the hierarchy: the segments, then each merge."""
        R = len(self.size_R)
        low, high = np.triu(self.near_RR).nonzero()
        similar_RR = np.full((R, R), -np.inf, np.float32)
        similar_RR[low, high] = similar_RR[high, low] = self.similarity(low, high)
        merged = np.empty((R - 1, 4), self.box_R4.dtype)
        boxes = self.box_R4.copy()
        for number in range(R - 1):
            a, b = divmod(int(similar_RR.argmax()), R)  # the first of equals
            self._merge(a, b)
            merged[number] = self.box_R4[a]
            similar_RR[[a, b]] = similar_RR[:, [a, b]] = -np.inf
            near = self.near_RR[a].nonzero()[0]
            similar_RR[a, near] = similar_RR[near, a] = self.similarity(np.full_like(near, a), near)
        return np.concatenate([boxes, merged])

    def _merge(self, a: int, b: int) -> None:
        size_a, size_b = self.size_R[a], self.size_R[b]
        share = size_a / (size_a + size_b)
        self.histogram_RB[a] = share * self.histogram_RB[a] + (1 - share) * self.histogram_RB[b]
        self.size_R[a] = size_a + size_b
        self.box_R4[a, :2] = np.minimum(self.box_R4[a, :2], self.box_R4[b, :2])
        self.box_R4[a, 2:] = np.maximum(self.box_R4[a, 2:], self.box_R4[b, 2:])
        near_R = self.near_RR[a] | self.near_RR[b]
        near_R[[a, b]] = False
        self.near_RR[b] = self.near_RR[:, b] = False
        self.near_RR[a] = self.near_RR[:, a] = near_R


def _regions(segment_HW: Array, histogram_RB: Array, by_size: bool, by_fill: bool) -> _Regions:
    from scipy.ndimage import find_objects

    R = len(histogram_RB)
    slices = find_objects(segment_HW + 1)
    box_R4 = np.array([(x.start, y.start, x.stop, y.stop) for y, x in slices])
    near_RR = np.zeros((R, R), bool)
    s = segment_HW  # pixels are neighbours in eight directions, as for the segmentation
    for a, b in ((s[:, :-1], s[:, 1:]), (s[:-1], s[1:]), (s[:-1, :-1], s[1:, 1:]), (s[:-1, 1:], s[1:, :-1])):
        near_RR[a, b] = near_RR[b, a] = True
    np.fill_diagonal(near_RR, False)
    size_R = np.bincount(segment_HW.ravel(), minlength=R)
    return _Regions(size_R, box_R4, histogram_RB, near_RR, segment_HW.size, by_size, by_fill)


def _histograms(segment_HW: Array, bin_HWC: Array, bins: int) -> Array:
    """Of each segment the shares of the bins of all channels, float32 [R, C * bins], which sum to 1."""
    C, R = bin_HWC.shape[2], int(segment_HW.max()) + 1
    place_HWC = (segment_HW[..., None] * C + np.arange(C)) * bins + bin_HWC
    count_RB = np.bincount(place_HWC.ravel(), minlength=R * C * bins).reshape(R, C * bins).astype(np.float32)
    return count_RB / count_RB.sum(1, keepdims=True)


def _colour_bins(space_HWC: Array) -> Array:
    return np.minimum((space_HWC * COLOUR_BINS).astype(np.int64), COLOUR_BINS - 1)


def _texture_bins(space_HWC: Array) -> Array:
    """Derivatives of a Gaussian of one pixel in 8 directions, each in 10 bins up to the largest of the channel; below 0
    they count in the opposite direction. [H, W, C * 8]"""
    from scipy.ndimage import gaussian_filter

    y_HWC, x_HWC = (gaussian_filter(space_HWC, (1, 1, 0), order=order) for order in ((1, 0, 0), (0, 1, 0)))
    angle_D = np.arange(DIRECTIONS) * (2 * np.pi / DIRECTIONS)
    along_HWCD = np.maximum(x_HWC[..., None] * np.cos(angle_D) + y_HWC[..., None] * np.sin(angle_D), 0)
    # Half a level of 255 is rounding of the filter, not texture.
    largest_C1 = np.maximum(along_HWCD.max((0, 1, 3)), 0.5 / 255)[:, None]
    bin_HWCD = np.minimum((along_HWCD / largest_C1 * TEXTURE_BINS).astype(np.int64), TEXTURE_BINS - 1)
    return bin_HWCD.reshape(*space_HWC.shape[:2], -1)


def _resized(image_HW3: Array, width: int) -> Array:
    from PIL import Image

    height = max(1, round(image_HW3.shape[0] * width / image_HW3.shape[1]))
    return np.asarray(
        Image.fromarray(np.ascontiguousarray(image_HW3)).resize((width, height), Image.Resampling.BICUBIC)
    )


def _first_of_each(boxes_M4: Array) -> Array:
    """Without boxes that came before."""
    base = int(boxes_M4.max(initial=0)) + 1
    key_M = boxes_M4 @ base ** np.arange(4)  # numpy's unique rows take ten times as long
    first_M = np.unique(key_M, return_index=True)[1]
    return boxes_M4[np.sort(first_M)]


def _hsv(image_HW3: Array) -> Array:
    from skimage.color import rgb2hsv

    return rgb2hsv(image_HW3)


def _hue(image_HW3: Array) -> Array:
    return _hsv(image_HW3)[..., :1]


def _lab(image_HW3: Array) -> Array:
    from skimage.color import rgb2lab

    return ((rgb2lab(image_HW3) + np.array([0, 128, 128])) / np.array([100, 255, 255])).clip(0, 1)


def _rgb(image_HW3: Array) -> Array:
    return image_HW3 / 255


def _rgi(image_HW3: Array) -> Array:
    sum_HW1 = image_HW3.sum(2, keepdims=True, dtype=np.float64)
    share_HW2 = np.divide(image_HW3[..., :2], sum_HW1, out=np.full((*sum_HW1.shape[:2], 2), 1 / 3), where=sum_HW1 > 0)
    return np.concatenate([share_HW2, sum_HW1 / 765], 2)


def _gray(image_HW3: Array) -> Array:
    return (image_HW3 @ np.array([0.299, 0.587, 0.114]) / 255)[..., None]


CONVERSIONS: dict[str, Callable[[Array], Array]] = {
    "hsv": _hsv, "lab": _lab, "rgb": _rgb, "rgi": _rgi, "hue": _hue, "gray": _gray,
}  # fmt: skip
"""From uint8 [H, W, 3] to values in [0, 1], [H, W, C]."""
