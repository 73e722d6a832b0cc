"""Every network of the zoo a second time, written from its paper or source in PyTorch's terms.

Each takes the twin and the input (1, C, H, W), and returns the logits.  Names are those of our
layers: that is how values are found; nothing else is shared with the builders.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from float_twin import F, Twin, max_pool, same, torch

Tensor = Any
Network = Callable[[Twin, Tensor], Tensor]


# --- XNOR-Net ------------------------------------------------------------------------------------


def xnor_block(t: Twin, x: Tensor, name: str, pad: int = 0) -> Tensor:
    x = t.sign(t.norm(x, f"{name}.bn"), f"{name}.sign")
    return F.relu(t.binary_conv(x, f"{name}.conv", pad=pad))


def xnor_lenet5(t: Twin, x: Tensor) -> Tensor:
    x = F.relu(t.norm(t.conv(x, "conv1"), "bn_conv1"))
    x = F.max_pool2d(x, 2)
    x = F.max_pool2d(xnor_block(t, x, "bin_conv2"), 2)
    x = t.sign(t.norm(x, "bin_ip1.bn"), "bin_ip1.sign").flatten(1)
    x = F.relu(t.binary_dense(x, "bin_ip1.linear"))
    return t.dense(x, "ip2")


def xnor_nin(t: Twin, x: Tensor) -> Tensor:
    x = F.relu(t.norm(t.conv(x, "xnor.0", pad=2), "xnor.1"))
    x = xnor_block(t, xnor_block(t, x, "xnor.3"), "xnor.4")
    x = F.max_pool2d(x, 3, 2, 1)
    x = xnor_block(t, x, "xnor.6", pad=2)
    x = xnor_block(t, xnor_block(t, x, "xnor.7"), "xnor.8")
    x = F.avg_pool2d(x, 3, 2, 1)
    x = xnor_block(t, xnor_block(t, x, "xnor.10", pad=1), "xnor.11")
    x = F.relu(t.conv(t.norm(x, "xnor.12"), "xnor.13"))
    return x.mean((2, 3))


def xnor_alexnet(t: Twin, x: Tensor) -> Tensor:
    x = F.relu(t.norm(t.conv(x, "features.0", stride=4), "features.1"))
    x = xnor_block(t, F.max_pool2d(x, 3, 2), "features.4", pad=2)
    x = F.max_pool2d(x, 3, 2)
    for name in ("features.6", "features.7", "features.8"):
        x = xnor_block(t, x, name, pad=1)
    x = F.max_pool2d(x, 3, 2).flatten(1)
    for name in ("classifier.0", "classifier.1"):
        x = t.sign(t.norm(x, f"{name}.bn"), f"{name}.sign")
        x = F.relu(t.binary_dense(x, f"{name}.linear"))
    return t.dense(t.norm(x, "classifier.2"), "classifier.4")


def xnor_resnet18(t: Twin, x: Tensor) -> Tensor:
    x = F.relu(t.norm(t.conv(x, "conv1", stride=2, pad=3), "bn1"))
    x = F.max_pool2d(x, 3, 2, 1)
    for stage in range(1, 5):
        for block in range(2):
            name = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            shortcut = x
            if stride == 2:
                shortcut = t.conv(x, f"{name}.shortcut.conv", stride=2)
                shortcut = t.norm(shortcut, f"{name}.shortcut.bn")
            for half, step in ((0, stride), (1, 1)):
                x = t.norm(x, f"{name}.{half}.bn")
                scale = x.abs().mean(1, keepdim=True)
                scale = t.take(f"{name}.{half}.beta", F.avg_pool2d(scale, 3, step, 1))
                x = t.sign(x, f"{name}.{half}.sign")
                x = t.scaled_conv(x, f"{name}.{half}.conv", step, scale)
            x = t.take(f"{name}.add", x + shortcut)
    return t.dense(F.relu(t.norm(x, "bn2")).mean((2, 3)), "fc")


# --- Bi-Real-Net ---------------------------------------------------------------------------------


def bireal18(t: Twin, x: Tensor) -> Tensor:
    x = t.norm(t.conv(x, "conv1", stride=2, pad=3), "bn1")
    x = F.max_pool2d(x, 3, 2, 1)
    for stage in range(1, 5):
        for block in range(4):
            name = f"layer{stage}.{block}"
            residual, stride = x, 1
            if stage > 1 and block == 0:
                residual = t.conv(F.avg_pool2d(x, 2, 2), f"{name}.downsample.1")
                residual, stride = t.norm(residual, f"{name}.downsample.2"), 2
            x = t.sign(x, f"{name}.binary_activation")
            x = t.norm(t.binary_conv(x, f"{name}.binary_conv", stride, 1), f"{name}.bn1")
            x = t.take(f"{name}.add", x + residual)
    return t.dense(x.mean((2, 3)), "fc")


# --- QuickNet ------------------------------------------------------------------------------------


def quicknet(blocks: tuple[int, ...], filters: tuple[int, ...]) -> Network:
    def evaluate(t: Twin, x: Tensor) -> Tensor:
        x = F.relu(t.norm(t.conv(x, "stem.conv1", 2, same(x, 3, 2)), "stem.bn1"))
        x = t.conv(x, "stem.depthwise", 2, same(x, 3, 2), groups=filters[0] // 4)
        x = t.norm(t.conv(t.norm(x, "stem.bn2"), "stem.conv2"), "stem.bn3")
        for section, (count, width) in enumerate(zip(blocks, filters, strict=True)):
            for block in range(count):
                if x.shape[1] != width:
                    x = transition(t, x, f"transition{section}")
                name = f"section{section}.{block}"
                y = t.sign(x, f"{name}.sign")
                y = t.binary_conv(y, f"{name}.conv", 1, 1, pad_value=1.0)
                x = t.take(f"{name}.add", t.norm(F.relu(y), f"{name}.bn") + x)
        return t.dense(F.relu(x).mean((2, 3)), "top.dense")

    def transition(t: Twin, x: Tensor, name: str) -> Tensor:
        x = F.max_pool2d(F.relu(x), 2, 1)
        row = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64)
        kernel = torch.outer(row, row) / 16
        channels = x.shape[1]
        x = F.conv2d(
            F.pad(x, same(x, 3, 2)), kernel.expand(channels, 1, 3, 3), stride=2, groups=channels
        )
        return t.norm(t.conv(t.take(f"{name}.blur", x), f"{name}.conv"), f"{name}.bn")

    return evaluate


# --- BinaryNet, BNN-PYNQ -------------------------------------------------------------------------


def bnn_vgg_small(t: Twin, x: Tensor) -> Tensor:
    layout = [("0", "", "1"), ("3", "4", "5"), ("7", "", "8"), ("10", "11", "12"), ("14", "", "15")]
    for conv, pool, norm in [*layout, ("17", "18", "19")]:
        if conv != "0":
            x = t.sign(F.hardtanh(x), f"features.{conv}.sign")
        x = t.binary_conv(x, f"features.{conv}", pad=1)
        x = F.max_pool2d(x, 2) if pool else x
        x = t.norm(x, f"features.{norm}")
    for position in (0, 3, 6):
        name = f"classifier.{position}"
        signs = t.sign(F.hardtanh(x), f"{name}.sign").flatten(1)
        x = t.norm(t.binary_dense(signs, name), f"classifier.{position + 1}")
    return x


def bnn_pynq_cnv(t: Twin, x: Tensor) -> Tensor:
    step = 2.0**-7
    x = torch.clamp(torch.round(x / step), -128, 127)
    x = t.take("conv_features.0", x, is_exact=True)
    x = t.norm(t.binary_conv(x, "conv_features.1", scale=step), "conv_features.2")
    x = t.sign(x, "conv_features.3")
    for position, is_pooled in ((4, True), (8, False), (11, True), (15, False), (18, False)):
        x = t.norm(t.binary_conv(x, f"conv_features.{position}"), f"conv_features.{position + 1}")
        x = t.sign(x, f"conv_features.{position + 2}")
        x = F.max_pool2d(x, 2) if is_pooled else x
    x = x.flatten(1)
    for position in (0, 3):
        x = t.binary_dense(x, f"linear_features.{position}")
        x = t.norm(x, f"linear_features.{position + 1}")
        x = t.sign(x, f"linear_features.{position + 2}")
    return t.norm(t.binary_dense(x, "linear_features.6"), "linear_features.7")


def bnn_pynq_lfc(t: Twin, x: Tensor) -> Tensor:
    x = t.sign(x.flatten(1), "features.0")
    for position in (2, 6, 10):
        x = t.norm(t.binary_dense(x, f"features.{position}"), f"features.{position + 1}")
        x = t.sign(x, f"features.{position + 2}")
    return t.norm(t.binary_dense(x, "features.14"), "features.15")


# --- ReActNet ------------------------------------------------------------------------------------


def reactnet_a(t: Twin, x: Tensor) -> Tensor:
    def rprelu(x: Tensor, name: str, number: int) -> Tensor:
        x = t.prelu(t.shift(x, f"{name}.move{number}2.bias"), f"{name}.prelu{number}.weight")
        return t.take(f"{name}.rprelu{number}", t.shift(x, f"{name}.move{number}3.bias"))

    def pointwise(signs: Tensor, shortcut: Tensor, conv: str, norm: str) -> Tensor:
        return t.norm(t.binary_conv(signs, conv), norm) + shortcut

    x = t.norm(t.conv(x, "feature.0.conv1", 2, 1), "feature.0.bn1")
    widths = [32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024]
    for i in range(1, 14):
        name, before, after = f"feature.{i}", widths[i - 1], widths[i]
        stride = 2 if before != after and after != 64 else 1
        y = t.sign(x, f"{name}.sign1", f"{name}.move11.bias")
        y = t.norm(t.binary_conv(y, f"{name}.binary_3x3", stride, 1), f"{name}.bn1")
        x = F.avg_pool2d(x, 2) if stride == 2 else x
        x = rprelu(x + y, name, 1)
        signs = t.sign(x, f"{name}.sign2", f"{name}.move21.bias")
        if before == after:
            x = pointwise(signs, x, f"{name}.binary_pw", f"{name}.bn2")
        else:
            first = pointwise(signs, x, f"{name}.binary_pw_down1", f"{name}.bn2_1")
            second = pointwise(signs, x, f"{name}.binary_pw_down2", f"{name}.bn2_2")
            x = torch.cat([first, second], 1)
        x = rprelu(x, name, 2)
    return t.dense(x.mean((2, 3)), "fc")


# --- BinaryDenseNet, MeliusNet -------------------------------------------------------------------


def grow(t: Twin, x: Tensor, name: str) -> Tensor:
    signs = t.sign(t.norm(x, f"{name}.bn"), f"{name}.sign")
    return t.binary_conv(signs, f"{name}.conv", pad=1)


def binary_densenet28(t: Twin, x: Tensor) -> Tensor:
    x = F.relu(t.norm(t.conv(x, "stem.conv", 2, same(x, 7, 2)), "stem.bn"))
    x = max_pool(x, 3, 2, same(x, 3, 2))
    for section, layers in enumerate((6, 6, 6, 5)):
        for layer in range(layers):
            x = torch.cat([x, grow(t, x, f"section{section}.{layer}")], 1)
        if section < 3:
            name = f"transition{section}"
            x = t.conv(F.relu(F.max_pool2d(t.norm(x, f"{name}.bn"), 2)), f"{name}.conv")
            assert x.shape[1] == (160, 192, 256)[section]
    return t.dense(F.relu(t.norm(x, "top.bn")).mean((2, 3)), "top.dense")


def meliusnet22(t: Twin, x: Tensor) -> Tensor:
    for stem, stride, groups in ((0, 2, 1), (1, 1, 4), (2, 1, 8)):
        x = t.conv(x, f"stem.{stem}.conv", stride, same(x, 3, stride), groups)
        x = F.relu(t.norm(x, f"stem.{stem}.bn"))
    x = max_pool(x, 2, 2, same(x, 2, 2))
    for section, blocks in enumerate((4, 5, 4, 4)):
        for block in range(blocks):
            name = f"section{section}.{block}"
            x = torch.cat([x, grow(t, x, f"{name}.dense")], 1)
            x = x + F.pad(grow(t, x, f"{name}.improvement"), (0, 0, 0, 0, x.shape[1] - 64, 0))
        if section < 3:
            name = f"transition{section}"
            x = t.norm(x, f"{name}.bn")
            x = t.conv(F.relu(max_pool(x, 2, 2, same(x, 2, 2))), f"{name}.conv")
    return t.dense(F.relu(t.norm(x, "top.bn")).mean((2, 3)), "top.dense")


# --- Real-to-Bin ---------------------------------------------------------------------------------


def real_to_bin(t: Twin, x: Tensor) -> Tensor:
    def half(x: Tensor, name: str, *, is_halved: bool) -> Tensor:
        stride = 2 if is_halved else 1
        y = t.norm(x, f"{name}_batch_norm")
        z = F.relu(t.dense(y.mean((2, 3)), f"{name}_scaling_dense_reduce"))
        scales = torch.sigmoid(t.dense(z, f"{name}_scaling_dense_expand"))
        y = t.sign(y, f"{name}_sign")
        y = t.binary_conv(y, f"{name}_conv2d", stride, same(y, 3, stride))
        y = t.prelu(y * scales[:, :, None, None], f"{name}_prelu")
        if is_halved:
            x = t.conv(F.avg_pool2d(x, 2, ceil_mode=True), f"{name}_shortcut_conv2d")
            x = t.norm(x, f"{name}_shortcut_batch_norm")
        return t.take(f"{name}_skip_add", x + y)

    x = F.relu(t.norm(t.conv(x, "block_1_conv2d", 2, same(x, 7, 2)), "block_1_batch_norm"))
    x = max_pool(x, 3, 2, same(x, 3, 2))
    for block in range(2, 10):
        x = half(x, f"block_{block}a", is_halved=block in (4, 6, 8))
        x = half(x, f"block_{block}b", is_halved=False)
    return t.dense(x.mean((2, 3)), "block_10_logits")


# --- Bitres --------------------------------------------------------------------------------------


def bitres(*blocks: int) -> Network:
    """Return Bitres with so many blocks of 64, 128 and 256 channels."""

    def network(t: Twin, x: Tensor) -> Tensor:
        x = t.norm(t.conv(x, "stem", stride=2, pad=1), "stem_norm")
        channels = 64
        widths = [w for w, count in zip((64, 128, 256), blocks, strict=True) for _ in range(count)]
        for i, width in enumerate(widths):
            name = f"blocks.{i}"
            stride = 1 if width == channels else 2
            y = t.sign(x, f"{name}.sign", f"{name}.sign.shift")
            y = t.norm(t.binary_conv(y, f"{name}.conv", stride, 1), f"{name}.norm")
            if stride == 2:
                x = F.avg_pool2d(x, 2)
                x = torch.cat([x, x], 1)
            z = t.shift(x + y, f"{name}.activation.shift_in")
            z = t.prelu(z, f"{name}.activation.slope")
            x = t.take(f"{name}.activation", t.shift(z, f"{name}.activation.shift_out"))
            channels = width
        return t.dense(x.mean((2, 3)), "classifier")

    return network


TWINS: dict[str, Network] = {
    "xnor-lenet5": xnor_lenet5,
    "xnor-nin": xnor_nin,
    "xnor-alexnet": xnor_alexnet,
    "xnor-resnet18": xnor_resnet18,
    "bireal18": bireal18,
    "quicknet-small": quicknet((4, 4, 4, 4), (32, 64, 256, 512)),
    "quicknet": quicknet((4, 4, 4, 4), (64, 128, 256, 512)),
    "quicknet-large": quicknet((6, 8, 12, 6), (64, 128, 256, 512)),
    "bnn-vgg-small": bnn_vgg_small,
    "bnn-pynq-cnv": bnn_pynq_cnv,
    "bnn-pynq-lfc": bnn_pynq_lfc,
    "reactnet-a": reactnet_a,
    "binary-densenet28": binary_densenet28,
    "meliusnet22": meliusnet22,
    "real-to-bin": real_to_bin,
    "bitres8": bitres(2, 2, 2),
    "bitres11": bitres(3, 4, 2),
    "bitres20": bitres(6, 6, 6),
}
