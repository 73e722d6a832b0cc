"""LeNet-5, Network in Network and AlexNet as XNOR-Net-PyTorch defines them.

Source: github.com/jiecaoyu/XNOR-Net-PyTorch: MNIST/models/LeNet_5.py, CIFAR_10/models/nin.py,
ImageNet/networks/model_list/alexnet.py.  Layers bear the names of the modules there.

The building block (BinConv2d there) is

    BatchNorm -> sign -> [dropout] -> binary convolution or dense, alpha, + bias -> ReLU

Padding contributes 0; pooling follows the block; there is no beta map.  Dropout does nothing at
inference and is left out.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from bitinfer.graph import Graph, GraphBuilder
from bitinfer.zoo.parameters import Architecture, ParameterSource

EPSILON = 1e-4
"""Of every BatchNorm but the last one of AlexNet."""

Size = tuple[int, int]
Built = tuple[Graph, dict[str, NDArray[Any]]]


class _Network:
    """Writes the layers of this family; each method returns the name of the value it makes."""

    def __init__(
        self, name: str, input_shape: tuple[int, int, int], source: ParameterSource
    ) -> None:
        self.b = GraphBuilder(name, input_shape)
        self.source = source

    def conv(
        self,
        x: str,
        name: str,
        cin: int,
        cout: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int = 0,
    ) -> str:
        p = self.source.layer(name, (cout, kernel, kernel, cin), is_binary=False)
        return self.b.conv2d(x, p.weight, p.bias, stride=stride, padding=padding, name=name)

    def dense(self, x: str, name: str, cin: int, cout: int) -> str:
        p = self.source.layer(name, (cout, cin), is_binary=False)
        return self.b.dense(x, p.weight, p.bias, name=name)

    def norm(
        self,
        x: str,
        name: str,
        channels: int,
        *,
        is_affine: bool = True,
        epsilon: float = EPSILON,
        flattened: Size | None = None,
    ) -> str:
        p = self.source.norm(
            name, channels, is_affine=is_affine, epsilon=epsilon, flattened=flattened
        )
        return self.b.batch_norm(x, p.mean, p.variance, p.gamma, p.beta, epsilon=epsilon, name=name)

    def binary_conv(
        self, x: str, name: str, cin: int, cout: int, kernel: int, *, padding: int = 0
    ) -> str:
        x = self.b.sign(self.norm(x, f"{name}.bn", cin), name=f"{name}.sign")
        name = f"{name}.conv"
        p = self.source.layer(name, (cout, kernel, kernel, cin), is_binary=True)
        x = self.b.bconv2d(x, p.weight, alpha=p.alpha, bias=p.bias, padding=padding, name=name)
        return self.b.relu(x)

    def binary_dense(
        self, x: str, name: str, cin: int, cout: int, *, flattened: Size | None = None
    ) -> str:
        """BatchNorm over the vector, unlike LeNet-5's over the map."""
        x = self.norm(x, f"{name}.bn", cin, flattened=flattened)
        x = self.b.sign(x, name=f"{name}.sign")
        return self.sign_dense(x, name, cin, cout, flattened=flattened)

    def sign_dense(
        self, x: str, name: str, cin: int, cout: int, *, flattened: Size | None = None
    ) -> str:
        name = f"{name}.linear"
        p = self.source.layer(name, (cout, cin), is_binary=True, flattened=flattened)
        x = self.b.bdense(x, p.weight, alpha=p.alpha, bias=p.bias, name=name)
        return self.b.relu(x)


def lenet5(source: ParameterSource, classes: int) -> Built:
    """LeNet-5 for MNIST: (28, 28, 1) -> (classes,)."""
    net = _Network("xnor-lenet5", (28, 28, 1), source)
    b = net.b
    x = net.conv(b.input, "conv1", 1, 20, 5)
    x = b.relu(net.norm(x, "bn_conv1", 20, is_affine=False))
    x = b.max_pool2d(x, 2)
    x = net.binary_conv(x, "bin_conv2", 20, 50, 5)
    x = b.max_pool2d(x, 2)
    # This dense layer normalises the channels of the map, before it is flattened.
    x = b.sign(net.norm(x, "bin_ip1.bn", 50), name="bin_ip1.sign")
    x = b.flatten(x, "channels_first")
    x = net.sign_dense(x, "bin_ip1", 50 * 4 * 4, 500, flattened=(4, 4))
    return b.build(net.dense(x, "ip2", 500, classes))


def nin(source: ParameterSource, classes: int) -> Built:
    """Network in Network for CIFAR-10: (32, 32, 3) -> (classes,), after a ReLU."""
    net = _Network("xnor-nin", (32, 32, 3), source)
    b = net.b
    x = net.conv(b.input, "xnor.0", 3, 192, 5, padding=2)
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
    x = b.avg_pool2d(x, 8)
    return b.build(b.flatten(x, "channels_first"))


def alexnet(source: ParameterSource, classes: int) -> Built:
    """AlexNet for ImageNet: (227, 227, 3) -> (classes,)."""
    net = _Network("xnor-alexnet", (227, 227, 3), source)
    b = net.b
    x = net.conv(b.input, "features.0", 3, 96, 11, stride=4)
    x = b.relu(net.norm(x, "features.1", 96))
    x = b.max_pool2d(x, 3, 2)
    x = net.binary_conv(x, "features.4", 96, 256, 5, padding=2)
    x = b.max_pool2d(x, 3, 2)
    x = net.binary_conv(x, "features.6", 256, 384, 3, padding=1)
    x = net.binary_conv(x, "features.7", 384, 384, 3, padding=1)
    x = net.binary_conv(x, "features.8", 384, 256, 3, padding=1)
    x = b.max_pool2d(x, 3, 2)
    x = b.flatten(x, "channels_first")
    x = net.binary_dense(x, "classifier.0", 256 * 6 * 6, 4096, flattened=(6, 6))
    x = net.binary_dense(x, "classifier.1", 4096, 4096)
    x = net.norm(x, "classifier.2", 4096, epsilon=1e-3)
    return b.build(net.dense(x, "classifier.4", 4096, classes))


ARCHITECTURES = (
    Architecture("xnor-lenet5", (28, 28, 1), 10, "ip2", lenet5),
    Architecture("xnor-nin", (32, 32, 3), 10, "xnor.13", nin),
    Architecture("xnor-alexnet", (227, 227, 3), 1000, "classifier.4", alexnet),
)
