"""A float network whose opinions of altered pictures binary networks are taught."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class _Layer(nn.Sequential):
    """Convolution, BatchNorm, ReLU, and a 2x2 maximum between where ``halves``."""

    def __init__(self, cin: int, cout: int, *, halves: bool = False) -> None:
        super().__init__(
            nn.Conv2d(cin, cout, 3, padding=1, bias=False),
            nn.MaxPool2d(2) if halves else nn.Identity(),
            nn.BatchNorm2d(cout),
            nn.ReLU(),
        )


class _Residual(nn.Module):
    """Two layers and a shortcut around them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(_Layer(channels, channels), _Layer(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.layers(x)
        return result


class Teacher(nn.Module):
    """A small residual network; x (n, 3, 32, 32) -> logits (n, classes).

    Computed in bfloat16 while training and in evaluation, which costs it no accuracy.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _Layer(3, 32),
            _Layer(32, 64, halves=True),
            _Residual(64),
            _Layer(64, 128, halves=True),
            _Layer(128, 256, halves=True),
            _Residual(256),
        )
        self.classifier = nn.Linear(256, classes)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 - described by the class
        with torch.autocast("cpu", torch.bfloat16):
            x = self.features(x)
        logits: Tensor = self.classifier(functional.adaptive_max_pool2d(x, 1).flatten(1).float())
        return logits

    def constrain(self) -> None:
        """Nothing is binary."""
