"""LeNet-5, Network in Network and AlexNet as XNOR-Net-PyTorch defines them.

Source: github.com/jiecaoyu/XNOR-Net-PyTorch: MNIST/models/LeNet_5.py, CIFAR_10/models/nin.py,
ImageNet/networks/model_list/alexnet.py.  Layers bear the names of the modules there.

The building block (BinConv2d there) is

    BatchNorm -> sign -> [dropout] -> binary convolution or dense, alpha, + bias -> ReLU

Padding contributes 0; pooling follows the block; there is no beta map.  Dropout does nothing at
inference and is left out.
"""

from __future__ import annotations

from bitinfer.zoo.network import CENTRED, Network, Size, strided
from bitinfer.zoo.parameters import (
    BEHIND_RELU,
    Architecture,
    Built,
    Expected,
    ParameterSource,
    Shape,
)

EPSILON = 1e-4
"""Of every BatchNorm but the last one of AlexNet."""

SIGNED = Expected(signed=True)
"""AlexNet's training lets gamma become negative; the others' keeps it above 0."""


class _Network(Network):
    """Writes the blocks of this family; each method returns the name of the value it makes."""

    def __init__(
        self,
        name: str,
        input_shape: Shape,
        source: ParameterSource,
        expected: Expected = BEHIND_RELU,
    ) -> None:
        super().__init__(name, input_shape, source, epsilon=EPSILON)
        self.expected = expected

    def binary_conv(
        self, x: str, name: str, cin: int, cout: int, kernel: int, *, padding: int = 0
    ) -> str:
        x = self.norm(x, f"{name}.bn", cin, expected=self.expected)
        x = self.b.sign(x, name=f"{name}.sign")
        name = f"{name}.conv"
        x = self.sign_conv(
            x, name, cin, cout, kernel, padding=padding, has_bias=True, has_alpha=True
        )
        return self.b.relu(x)

    def binary_dense(
        self, x: str, name: str, cin: int, cout: int, *, flattened: Size | None = None
    ) -> str:
        """BatchNorm over the vector, unlike LeNet-5's over the map."""
        x = self.norm(x, f"{name}.bn", cin, flattened=flattened, expected=self.expected)
        x = self.b.sign(x, name=f"{name}.sign")
        return self.relu_dense(x, name, cin, cout, flattened=flattened)

    def relu_dense(
        self, x: str, name: str, cin: int, cout: int, *, flattened: Size | None = None
    ) -> str:
        name = f"{name}.linear"
        x = self.sign_dense(x, name, cin, cout, flattened=flattened, has_bias=True, has_alpha=True)
        return self.b.relu(x)


def lenet5(source: ParameterSource, classes: int, input_shape: Shape) -> Built:
    """LeNet-5 for MNIST: (28, 28, 1) -> (classes,)."""
    net = _Network("xnor-lenet5", input_shape, source)
    b = net.b
    height, width = (((side - 4) // 2 - 4) // 2 for side in input_shape[:2])
    x = net.conv(b.input, "conv1", input_shape[2], 20, 5)
    x = b.relu(net.norm(x, "bn_conv1", 20, is_affine=False))
    x = b.max_pool2d(x, 2)
    x = net.binary_conv(x, "bin_conv2", 20, 50, 5)
    x = b.max_pool2d(x, 2)
    # This dense layer normalises the channels of the map, before it is flattened.
    x = b.sign(net.norm(x, "bin_ip1.bn", 50), name="bin_ip1.sign")
    x = b.flatten(x, "channels_first")
    x = net.relu_dense(x, "bin_ip1", 50 * height * width, 500, flattened=(height, width))
    return b.build(net.dense(x, "ip2", 500, classes))


def nin(source: ParameterSource, classes: int, input_shape: Shape) -> Built:
    """Network in Network for CIFAR-10: (32, 32, 3) -> (classes,), after a ReLU."""
    net = _Network("xnor-nin", input_shape, source)
    b = net.b
    x = net.conv(b.input, "xnor.0", input_shape[2], 192, 5, padding=2)
    x = b.relu(net.norm(x, "xnor.1", 192, is_affine=False))
    x = net.binary_conv(x, "xnor.3", 192, 160, 1)
    x = net.binary_conv(x, "xnor.4", 160, 96, 1)
    x = b.max_pool2d(x, 3, 2, padding=1)
    x = net.binary_conv(x, "xnor.6", 96, 192, 5, padding=2)
    x = net.binary_conv(x, "xnor.7", 192, 192, 1)
    x = net.binary_conv(x, "xnor.8", 192, 192, 1)
    x = b.avg_pool2d(x, 3, 2, padding=1, count_include_pad=True)
    x = net.binary_conv(x, "xnor.10", 192, 192, 3, padding=1)
    x = net.binary_conv(x, "xnor.11", 192, 192, 1)
    x = net.norm(x, "xnor.12", 192, is_affine=False)
    x = b.relu(net.conv(x, "xnor.13", 192, classes, 1))
    x = b.avg_pool2d(x, strided(strided(input_shape[:2])))
    return b.build(b.flatten(x, "channels_first"))


def alexnet(source: ParameterSource, classes: int, input_shape: Shape) -> Built:
    """AlexNet for ImageNet: (227, 227, 3) -> (classes,)."""
    net = _Network("xnor-alexnet", input_shape, source, SIGNED)
    b = net.b
    height, width = ((side - 11) // 4 + 1 for side in input_shape[:2])
    for _ in range(3):
        height, width = (height - 1) // 2, (width - 1) // 2
    x = net.conv(b.input, "features.0", input_shape[2], 96, 11, stride=4)
    x = b.relu(net.norm(x, "features.1", 96, expected=CENTRED))
    x = b.max_pool2d(x, 3, 2)
    x = net.binary_conv(x, "features.4", 96, 256, 5, padding=2)
    x = b.max_pool2d(x, 3, 2)
    x = net.binary_conv(x, "features.6", 256, 384, 3, padding=1)
    x = net.binary_conv(x, "features.7", 384, 384, 3, padding=1)
    x = net.binary_conv(x, "features.8", 384, 256, 3, padding=1)
    x = b.max_pool2d(x, 3, 2)
    x = b.flatten(x, "channels_first")
    length = 256 * height * width
    x = net.binary_dense(x, "classifier.0", length, 4096, flattened=(height, width))
    x = net.binary_dense(x, "classifier.1", 4096, 4096)
    x = net.norm(x, "classifier.2", 4096, epsilon=1e-3, expected=SIGNED)
    return b.build(net.dense(x, "classifier.4", 4096, classes))


_PAPER = "Rastegari et al. 2016"

ARCHITECTURES = (
    Architecture("xnor-lenet5", (28, 28, 1), 10, "ip2", lenet5, _PAPER),
    Architecture("xnor-nin", (32, 32, 3), 10, "xnor.13", nin, _PAPER),
    Architecture("xnor-alexnet", (227, 227, 3), 1000, "classifier.4", alexnet, _PAPER),
)
