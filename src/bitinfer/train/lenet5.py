"""XNOR-Net's LeNet-5 in PyTorch, trainable; its modules bear the names of the authors' code.

So a state dict of it is one of theirs, and the zoo's builder finds every weight in it by name.  The
first and the last layer stay in float:

    input            28 x 28 x 1     (pixel / 255 - 0.1307) / 0.3081
    conv1            24 x 24 x 20    + BatchNorm without gamma and beta, ReLU
    max-pool 2       12 x 12 x 20    BatchNorm, sign
    bin_conv2         8 x  8 x 50    + bias, ReLU
    max-pool 2        4 x  4 x 50    BatchNorm, sign, flattened channel by channel
    bin_ip1          500             + bias, ReLU
    ip2               10             logits
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from bitinfer.importers.states.xnor_net import MIN_GAMMA
from bitinfer.train.layers import BinaryLinear, XnorBlock, constrain
from bitinfer.zoo.xnor_net import EPSILON


class BinLinear(nn.Module):
    """BatchNorm over the channels of a map, sign, flattening, binary dense layer, ReLU."""

    def __init__(self, channels: int, cin: int, cout: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, eps=EPSILON)
        self.linear = BinaryLinear(cin, cout)


class LeNet5(nn.Module):
    """The network of the module's description; x (n, 1, 28, 28) -> logits (n, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.bn_conv1 = nn.BatchNorm2d(20, eps=EPSILON, affine=False)
        self.bin_conv2 = XnorBlock(20, 50, 5, epsilon=EPSILON)
        self.bin_ip1 = BinLinear(50, 800, 500)
        self.ip2 = nn.Linear(500, 10)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 - described by the class
        # Maximum and ReLU commute; in this order ReLU sees a quarter of the values.
        x = functional.relu(functional.max_pool2d(self.bn_conv1(self.conv1(x)), 2))
        x = self.bin_conv2.conv(self.bin_conv2.bn(x))
        x = functional.relu(functional.max_pool2d(x, 2))
        x = functional.relu(self.bin_ip1.linear(self.bin_ip1.bn(x).flatten(1)))
        logits: Tensor = self.ip2(x)
        return logits

    @torch.no_grad()
    def constrain(self) -> None:
        """Bring weights and gammas back to where they may be, after an optimiser step.

        A channel whose gamma stays above 0 keeps its direction while training.
        """
        constrain(self)
        for norm in (self.bin_conv2.bn, self.bin_ip1.bn):
            norm.weight.clamp_(min=MIN_GAMMA)
