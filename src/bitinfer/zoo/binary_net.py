"""The network for CIFAR-10 of BinaryNet (Hubara et al. 2016), often called VGG-small.

Source: github.com/itayhubara/BinaryNet.pytorch, models/vgg_cifar10_binary.py, whose names of
modules the layers bear, with the widths of the paper (``infl_ratio`` 1).

    sign -> binary convolution or dense, + bias -> [2x2 maximum] -> BatchNorm -> hardtanh

All weights are binary; the first layer takes the picture as it is.  Padding contributes 0.  Every
hardtanh stands before a sign, where it does nothing, and is left out; so is the LogSoftmax behind
the last BatchNorm.
"""

from __future__ import annotations

from bitinfer.zoo.network import Network, sums
from bitinfer.zoo.parameters import Architecture, Built, ParameterSource, Shape

EPSILON = 1e-5

CONVOLUTIONS = ((0, 128), (3, 128), (7, 256), (10, 256), (14, 512), (17, 512))
"""Position and width of each; every second one is followed by a maximum, before its BatchNorm."""

DENSE = 1024


def vgg_small(source: ParameterSource, classes: int, input_shape: Shape) -> Built:
    """VGG-small for CIFAR-10: (32, 32, 3) -> (classes,)."""
    net = Network("bnn-vgg-small", input_shape, source, epsilon=EPSILON)
    b = net.b
    height, width, channels = input_shape
    x = b.input
    for number, (position, outputs) in enumerate(CONVOLUTIONS):
        name = f"features.{position}"
        if number == 0:
            x = net.binary_weight_conv(x, name, channels, outputs, 3, padding=1, has_bias=True)
        else:
            x = b.sign(x, name=f"{name}.sign")
            x = net.sign_conv(x, name, channels, outputs, 3, padding=1, has_bias=True)
        if number % 2:
            position += 1
            x = b.max_pool2d(x, 2, name=f"features.{position}")
            height, width = height // 2, width // 2
        expected = sums(9 * channels)
        x = net.norm(x, f"features.{position + 1}", outputs, expected=expected)
        channels = outputs
    x = b.flatten(b.sign(x, name="classifier.0.sign"), "channels_first")
    inputs, flattened = channels * height * width, (height, width)
    x = net.sign_dense(x, "classifier.0", inputs, DENSE, flattened=flattened, has_bias=True)
    x = net.norm(x, "classifier.1", DENSE, expected=sums(inputs))
    x = b.sign(x, name="classifier.3.sign")
    x = net.sign_dense(x, "classifier.3", DENSE, DENSE, has_bias=True)
    x = net.norm(x, "classifier.4", DENSE, expected=sums(DENSE))
    x = b.sign(x, name="classifier.6.sign")
    x = net.sign_dense(x, "classifier.6", DENSE, classes, has_bias=True)
    x = net.norm(x, "classifier.7", classes, is_affine=False, expected=sums(DENSE))
    return b.build(x)


ARCHITECTURES = (
    Architecture("bnn-vgg-small", (32, 32, 3), 10, "classifier.6", vgg_small, "Hubara et al. 2016"),
)
