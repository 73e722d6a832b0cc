"""Altered copies of pictures: what a small data set is trained on in place of itself."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor
from torch.nn import functional


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distortion:
    """How far a copy may be from the picture.

    Attributes:
        rotation: largest angle, in degrees, to either side.
        stretch: largest relative change of width and of height.
        shear: largest horizontal shift per unit of height.
        shift: largest displacement, in pixels, along either axis.
        warp: largest displacement, in pixels, of the knots of the elastic distortion.
    """

    rotation: float = 10.0
    stretch: float = 0.1
    shear: float = 0.1
    shift: float = 2.0
    warp: float = 1.5


def distort(pixels: Tensor, limits: Distortion, *, generator: torch.Generator) -> Tensor:
    """Return a randomly distorted copy of every picture, black outside.

    Shapes:  (n, 1, h, w), black = 0  ->  the same.
    Meaning: a random affine map (rotation, stretch, shear, shift) plus an elastic displacement
             field, bicubic between 5 x 5 random knots: a coarse form of Simard, Steinkraus and
             Platt, "Best Practices for Convolutional Neural Networks", ICDAR 2003.
    """
    n, _, height, width = pixels.shape

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator) * 2 - 1

    angle = uniform(n) * math.radians(limits.rotation)
    across, down = 1 + uniform(n) * limits.stretch, 1 + uniform(n) * limits.stretch
    shear = uniform(n) * limits.shear
    # The sampling grid runs from -1 to 1, so one pixel is 2 / side.
    pixel = torch.tensor([2 / width, 2 / height])
    shift = uniform(n, 2) * limits.shift * pixel
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = (
        torch.stack([cos * across, shear - sin * down, shift[:, 0]], dim=1),
        torch.stack([sin * across, cos * down, shift[:, 1]], dim=1),
    )
    grid = functional.affine_grid(torch.stack(rows, dim=1), list(pixels.shape), align_corners=False)
    knots = uniform(n, 2, 5, 5) * limits.warp
    field = functional.interpolate(knots, size=(height, width), mode="bicubic", align_corners=True)
    grid += field.permute(0, 2, 3, 1) * pixel
    return functional.grid_sample(pixels, grid, align_corners=False)


MARGIN = 4


def crop_and_flip(padded: Tensor, *, generator: torch.Generator) -> Tensor:
    """Return of every picture a random crop, turned left to right half of the time.

    Shapes:  (n, h + 8, w + 8, c), with a margin of 4 pixels around the picture -> (n, h, w, c).
    """
    n, height, width = len(padded), padded.shape[1] - 2 * MARGIN, padded.shape[2] - 2 * MARGIN
    corner = torch.randint(0, 2 * MARGIN + 1, (2, n), generator=generator)
    turned = torch.rand(n, generator=generator) < 0.5
    across = torch.arange(width)
    rows = corner[0][:, None] + torch.arange(height)
    columns = corner[1][:, None] + torch.where(turned[:, None], width - 1 - across, across)
    samples = torch.arange(n)[:, None, None]
    return padded[samples, rows[:, :, None], columns[:, None, :]]
