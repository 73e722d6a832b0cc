"""CNV and LFC of BNN-PYNQ (Umuroglu et al. 2017), with 1-bit weights and activations.

Source: github.com/Xilinx/brevitas, src/brevitas_examples/bnn_pynq/models/CNV.py, FC.py and
tensor_norm.py, cfg/cnv_1w1a.ini and lfc_1w1a.ini.  Layers bear the names of the modules there.

    binary convolution or dense -> BatchNorm -> sign -> [2x2 maximum of the signs]

The input is ``2 * pixel / 255 - 1``: of CNV as multiples of 1/128, of LFC as signs.  All weights
are binary and without scale; there is no bias and no padding.  TensorNorm, behind the last layer,
is a BatchNorm with one set of numbers for all classes.
"""

from __future__ import annotations

import numpy as np

from bitinfer.zoo.network import Network, Size, sums
from bitinfer.zoo.parameters import Architecture, Built, Expected, ParameterSource, Shape

CNV_EPSILON = 1e-4
LFC_EPSILON = 1e-5
TENSOR_EPSILON = 1e-4

STEP = 2.0**-7
"""Of CNV's input."""

CNV_CONVOLUTIONS = ((1, 64), (4, 64), (8, 128), (11, 128), (15, 256), (18, 256))
"""Position and width of each; a maximum stands before the third and the fifth."""


class _Network(Network):
    def tensor_norm(self, x: str, name: str, classes: int, inputs: int) -> str:
        expected = Expected(0.0, inputs**0.5)
        p = self.source.norm(name, 1, is_affine=True, epsilon=TENSOR_EPSILON, expected=expected)
        assert p.gamma is not None
        assert p.beta is not None
        parts = (np.repeat(part, classes) for part in (p.mean, p.variance, p.gamma, p.beta))
        return self.b.batch_norm(x, *parts, epsilon=TENSOR_EPSILON, name=name)


def cnv(source: ParameterSource, classes: int, input_shape: Shape) -> Built:
    """CNV for CIFAR-10: (32, 32, 3) -> (classes,)."""
    net = _Network("bnn-pynq-cnv", input_shape, source, epsilon=CNV_EPSILON)
    b = net.b
    height, width, channels = input_shape
    x = b.quantize(b.input, STEP, name="conv_features.0")
    for number, (position, outputs) in enumerate(CNV_CONVOLUTIONS):
        name = f"conv_features.{position}"
        if number in (2, 4):
            x = b.max_pool2d(x, 2, name=f"conv_features.{position - 1}")
            height, width = height // 2, width // 2
        if number == 0:
            x = net.binary_weight_conv(x, name, channels, outputs, 3, scale=STEP)
        else:
            x = net.sign_conv(x, name, channels, outputs, 3)
        height, width = height - 2, width - 2
        expected = sums(9 * channels)
        x = net.norm(x, f"conv_features.{position + 1}", outputs, expected=expected)
        x = b.sign(x, name=f"conv_features.{position + 2}")
        channels = outputs
    x = b.flatten(x, "channels_first")
    inputs, flattened = channels * height * width, (height, width)
    x = net.sign_dense(x, "linear_features.0", inputs, 512, flattened=flattened)
    x = net.norm(x, "linear_features.1", 512, expected=sums(inputs))
    x = b.sign(x, name="linear_features.2")
    x = net.sign_dense(x, "linear_features.3", 512, 512)
    x = net.norm(x, "linear_features.4", 512, expected=sums(512))
    x = b.sign(x, name="linear_features.5")
    x = net.sign_dense(x, "linear_features.6", 512, classes)
    return b.build(net.tensor_norm(x, "linear_features.7", classes, 512))


def lfc(source: ParameterSource, classes: int, input_shape: Shape) -> Built:
    """LFC for MNIST: (28, 28, 1) -> (classes,)."""
    net = _Network("bnn-pynq-lfc", input_shape, source, epsilon=LFC_EPSILON)
    b = net.b
    height, width, channels = input_shape
    inputs = height * width * channels
    flattened: Size | None = (height, width)
    x = b.sign(b.flatten(b.input, "channels_first"), name="features.0")
    for position in (2, 6, 10):
        name = f"features.{position}"
        x = net.sign_dense(x, name, inputs, 1024, flattened=flattened)
        x = net.norm(x, f"features.{position + 1}", 1024, expected=sums(inputs))
        x = b.sign(x, name=f"features.{position + 2}")
        inputs, flattened = 1024, None
    x = net.sign_dense(x, "features.14", inputs, classes)
    return b.build(net.tensor_norm(x, "features.15", classes, inputs))


_PAPER = "Umuroglu et al. 2017"

ARCHITECTURES = (
    Architecture("bnn-pynq-cnv", (32, 32, 3), 10, "linear_features.6", cnv, _PAPER),
    Architecture("bnn-pynq-lfc", (28, 28, 1), 10, "features.14", lfc, _PAPER),
)
