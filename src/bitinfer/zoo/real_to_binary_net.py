"""Real-to-Bin (Martinez et al. 2020): ResNet-18 whose sums are scaled by what the input looks like.

Source: github.com/larq/zoo, larq_zoo/literature/real_to_bin_nets.py (RealToBinNetBNN), whose names
of layers are used without the leading name of the model.

    BatchNorm -> sign -> binary 3x3 convolution -> * scale of each channel -> PReLU -> + shortcut

The scales come from the means of the normalised input through two dense layers, with a ReLU
between them and a sigmoid behind.  The shortcut of a block that halves the map is a 2x2 average, a
float 1x1 convolution and a BatchNorm.  Convolutions have no bias; padding contributes 0, where
TensorFlow puts it.  The output is the logits; the softmax of the source is left to the caller.
"""

from __future__ import annotations

from bitinfer.zoo.network import CENTRED, Network, Size, same, strided
from bitinfer.zoo.parameters import Architecture, Built, Expected, ParameterSource, Shape

EPSILON = 1e-3
"""Keras' own, which the source leaves as it is."""

REDUCTION = 8
"""Of the channels, between the two dense layers."""


class _Network(Network):
    """``deviation`` is that of the value that the next block reads."""

    deviation = 1.0

    def scales(self, x: str, name: str, cin: int, cout: int) -> str:
        x = self.b.global_pool2d(x, name=f"{name}_scaling_pool")
        narrow = cin // REDUCTION
        x = self.dense(x, f"{name}_scaling_dense_reduce", cin, narrow, has_bias=False)
        x = self.b.relu(x, name=f"{name}_scaling_relu")
        x = self.dense(x, f"{name}_scaling_dense_expand", narrow, cout, has_bias=False)
        return self.b.sigmoid(x, name=f"{name}_scaling_sigmoid")

    def shortcut(self, x: str, name: str, size: Size, cin: int, cout: int) -> str:
        x = self.b.avg_pool2d(
            x, 2, padding=same(size, 2, 2), count_include_pad=False, name=f"{name}_shortcut_pool"
        )
        x = self.conv(x, f"{name}_shortcut_conv2d", cin, cout, 1, has_bias=False)
        expected = Expected(0.0, self.deviation, signed=True)
        return self.norm(x, f"{name}_shortcut_batch_norm", cout, expected=expected)

    def half_block(self, x: str, name: str, size: Size, cin: int, cout: int) -> tuple[str, Size]:
        stride = 1 if cin == cout else 2
        expected = Expected(0.2, self.deviation, signed=True)
        y = self.norm(x, f"{name}_batch_norm", cin, expected=expected)
        scales = self.scales(y, name, cin, cout)
        y = self.b.sign(y, name=f"{name}_sign")
        padding = same(size, 3, stride)
        y = self.sign_conv(y, f"{name}_conv2d", cin, cout, 3, stride=stride, padding=padding)
        y = self.b.multiply(y, scales, name=f"{name}_scaling_multiplication")
        y = self.b.prelu(
            y, self.source.vector(f"{name}_prelu", cout, "slope"), name=f"{name}_prelu"
        )
        if stride != 1:
            x, self.deviation = self.shortcut(x, name, size, cin, cout), 1.0
        half_of_sums = 0.5 * (9 * cin) ** 0.5
        self.deviation = (self.deviation**2 + half_of_sums**2) ** 0.5
        return self.b.add(y, x, name=f"{name}_skip_add"), strided(size, stride)


def real_to_bin(source: ParameterSource, classes: int, input_shape: Shape) -> Built:
    """Real-to-Bin for ImageNet: (224, 224, 3) -> (classes,)."""
    net = _Network("real-to-bin", input_shape, source, epsilon=EPSILON)
    b = net.b
    size: Size = input_shape[:2]
    channels = 64
    x = net.conv(
        b.input,
        "block_1_conv2d",
        input_shape[2],
        channels,
        7,
        stride=2,
        padding=same(size, 7, 2),
        has_bias=False,
    )
    size = strided(size)
    x = b.relu(net.norm(x, "block_1_batch_norm", channels, expected=CENTRED), name="block_1_relu")
    x = b.max_pool2d(x, 3, 2, padding=same(size, 3, 2), name="block_1_pool")
    size = strided(size)
    for block in range(2, 10):
        width = channels * 2 if block in (4, 6, 8) else channels
        x, size = net.half_block(x, f"block_{block}a", size, channels, width)
        x, size = net.half_block(x, f"block_{block}b", size, width, width)
        channels = width
    x = b.global_pool2d(x, name="block_10_global_pool")
    return b.build(net.dense(x, "block_10_logits", channels, classes))


ARCHITECTURES = (
    Architecture(
        "real-to-bin", (224, 224, 3), 1000, "block_10_logits", real_to_bin, "Martinez et al. 2020"
    ),
)
