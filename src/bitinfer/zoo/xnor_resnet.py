"""ResNet-18 with the binary convolutions of XNOR-Net (Rastegari et al. 2016, section 4.1).

Of the paper: the order BatchNorm -> sign -> binary convolution, scaled by alpha and by the beta map
K of what was binarised; first and last layer float; shortcuts of type B (He et al. 2015, section
3.3: a 1x1 convolution where the shape changes).  The paper says no more: here each pair of
convolutions has one shortcut, that of type B is float, with a BatchNorm behind it, and the ends are
those of He et al.'s network.
"""

from __future__ import annotations

from bitinfer.zoo.network import CENTRED, Network
from bitinfer.zoo.parameters import (
    BEHIND_RELU,
    Architecture,
    Built,
    Expected,
    ParameterSource,
    Shape,
)

EPSILON = 1e-5
WIDTHS = (64, 128, 256, 512)


class _Network(Network):
    def binary_conv(self, x: str, name: str, cin: int, cout: int, *, stride: int) -> str:
        x = self.norm(x, f"{name}.bn", cin, expected=Expected(0.2, 1.5, signed=True))
        beta = self.b.beta_map(x, kernel=3, stride=stride, padding=1, name=f"{name}.beta")
        x = self.b.sign(x, name=f"{name}.sign")
        p = self.source.layer(f"{name}.conv", (cout, 3, 3, cin), is_binary=True, has_bias=False)
        return self.b.bconv2d(
            x,
            p.weight,
            alpha=p.alpha,
            beta=beta,
            stride=stride,
            padding=1,
            name=f"{name}.conv",
        )

    def block(self, x: str, name: str, cin: int, cout: int, *, stride: int) -> str:
        shortcut = x
        if cin != cout:
            shortcut = self.conv(
                x, f"{name}.shortcut.conv", cin, cout, 1, stride=stride, has_bias=False
            )
            shortcut = self.norm(shortcut, f"{name}.shortcut.bn", cout, expected=CENTRED)
        x = self.binary_conv(x, f"{name}.0", cin, cout, stride=stride)
        x = self.binary_conv(x, f"{name}.1", cout, cout, stride=1)
        return self.b.add(x, shortcut, name=f"{name}.add")


def resnet18(source: ParameterSource, classes: int, input_shape: Shape) -> Built:
    """ResNet-18 for ImageNet: (224, 224, 3) -> (classes,)."""
    net = _Network("xnor-resnet18", input_shape, source, epsilon=EPSILON)
    b = net.b
    x = net.conv(b.input, "conv1", input_shape[2], 64, 7, stride=2, padding=3, has_bias=False)
    x = b.relu(net.norm(x, "bn1", 64, expected=CENTRED))
    x = b.max_pool2d(x, 3, 2, padding=1)
    channels = WIDTHS[0]
    for stage, width in enumerate(WIDTHS, start=1):
        x = net.block(x, f"layer{stage}.0", channels, width, stride=1 if stage == 1 else 2)
        x = net.block(x, f"layer{stage}.1", width, width, stride=1)
        channels = width
    x = b.relu(net.norm(x, "bn2", channels, expected=BEHIND_RELU))
    x = b.global_pool2d(x)
    return b.build(net.dense(x, "fc", channels, classes))


ARCHITECTURES = (
    Architecture("xnor-resnet18", (224, 224, 3), 1000, "fc", resnet18, "Rastegari et al. 2016"),
)
