"""The zoo's published networks in PyTorch, trainable.

Modules bear the names of the authors' code, which are those of the zoo's layers: a state dict is
one of theirs, and the zoo's builder finds every weight in it.  ``constrain`` is called behind every
step.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from bitinfer.importers.states.xnor_net import MIN_GAMMA
from bitinfer.train.layers import BinaryConv2d, BinaryLinear, Mode, XnorBlock, constrain
from bitinfer.zoo import binary_net
from bitinfer.zoo.xnor_net import EPSILON


class _XnorNet(nn.Module):
    @torch.no_grad()
    def constrain(self) -> None:
        """Bring weights and gammas back to where they may be, after an optimiser step.

        A channel whose gamma stays above 0 keeps its direction while training.
        """
        constrain(self)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d) and module.affine:
                module.weight.clamp_(min=MIN_GAMMA)


class BinLinear(nn.Module):
    """BatchNorm over the channels of a map, sign, flattening, binary dense layer, ReLU."""

    def __init__(self, channels: int, cin: int, cout: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, eps=EPSILON)
        self.linear = BinaryLinear(cin, cout)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 - described by the class
        return functional.relu(self.linear(self.bn(x).flatten(1)))


class LeNet5(_XnorNet):
    """XNOR-Net's LeNet-5; x (n, 1, 28, 28) -> logits (n, 10).

    The first and the last layer stay in float:

        input            28 x 28 x 1
        conv1            24 x 24 x 20    + BatchNorm without gamma and beta, ReLU
        max-pool 2       12 x 12 x 20    BatchNorm, sign
        bin_conv2         8 x  8 x 50    + bias, ReLU
        max-pool 2        4 x  4 x 50    BatchNorm, sign, flattened channel by channel
        bin_ip1          500             + bias, ReLU
        ip2               10             logits
    """

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
        x = functional.max_pool2d(self.bin_conv2(x), 2)
        logits: Tensor = self.ip2(self.bin_ip1(x))
        return logits


class Nin(_XnorNet):
    """XNOR-Net-PyTorch's Network in Network; x (n, 3, 32, 32) -> logits (n, 10), behind a ReLU."""

    def __init__(self) -> None:
        super().__init__()

        def block(
            cin: int, cout: int, kernel: int, padding: int = 0, dropout: float = 0
        ) -> nn.Module:
            return XnorBlock(
                cin, cout, kernel, epsilon=EPSILON, padding=padding, dropout=dropout, bfloat16=True
            )

        self.xnor = nn.Sequential(
            nn.Conv2d(3, 192, 5, padding=2),
            nn.BatchNorm2d(192, eps=EPSILON, affine=False),
            nn.ReLU(),
            block(192, 160, 1),
            block(160, 96, 1),
            nn.MaxPool2d(3, 2, padding=1),
            block(96, 192, 5, padding=2, dropout=0.5),
            block(192, 192, 1),
            block(192, 192, 1),
            nn.AvgPool2d(3, 2, padding=1),
            block(192, 192, 3, padding=1, dropout=0.5),
            block(192, 192, 1),
            nn.BatchNorm2d(192, eps=EPSILON, affine=False),
            nn.Conv2d(192, 10, 1),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 - described by the class
        logits: Tensor = self.xnor(x).mean(dim=(2, 3))
        return logits


class VggSmall(nn.Module):
    """BinaryNet's network for CIFAR-10; x (n, 3, 32, 32) -> logits (n, 10).

    The hard tanh of the source stands before every sign and is its gradient here.  The first layer
    has binary weights and takes the picture as it is.
    """

    def __init__(self) -> None:
        super().__init__()
        features: OrderedDict[str, nn.Module] = OrderedDict()
        cin = 3
        for number, (position, cout) in enumerate(binary_net.CONVOLUTIONS):
            mode: Mode = "bnn" if number else "binaryconnect"
            # The first one takes the picture, of which bfloat16 would lose something.
            features[str(position)] = BinaryConv2d(
                cin, cout, 3, padding=1, mode=mode, bfloat16=number > 0
            )
            if number % 2:
                position += 1
                features[str(position)] = nn.MaxPool2d(2)
            features[str(position + 1)] = nn.BatchNorm2d(cout, eps=binary_net.EPSILON)
            cin = cout
        self.features = nn.Sequential(features)
        dense = binary_net.DENSE
        classifier: OrderedDict[str, nn.Module] = OrderedDict()
        for position, (inputs, outputs) in zip(
            (0, 3, 6), ((16 * cin, dense), (dense, dense), (dense, 10)), strict=True
        ):
            classifier[str(position)] = BinaryLinear(inputs, outputs, mode="bnn")
            classifier[str(position + 1)] = nn.BatchNorm1d(
                outputs, eps=binary_net.EPSILON, affine=position != 6
            )
        self.classifier = nn.Sequential(classifier)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 - described by the class
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits

    def constrain(self) -> None:
        """Bring real weights back to [-1, 1], beyond which they get no gradient."""
        constrain(self)
