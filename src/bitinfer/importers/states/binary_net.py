"""State dicts of itayhubara/BinaryNet.pytorch: VGG and ResNet for CIFAR-10, AlexNet for ImageNet.

Source: models/vgg_cifar10_binary.py, resnet_binary.py, alexnet_binary.py and binarized_modules.py
(Hubara et al. 2016).

    sign -> convolution or dense layer of sign(weight), + bias -> [maximum] -> BatchNorm -> hardtanh

All layers are binary, without a scale; the first reads the picture as it is.  A hardtanh that only
a sign reads changes nothing, and is left out; so is the LogSoftmax at the end.  Widths are those of
the checkpoint: the authors' networks are ``infl_ratio`` times as wide as the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence

from bitinfer.errors import CheckpointError
from bitinfer.importers.states.modules import INPUT, Modules, StateNetwork, signs
from bitinfer.importers.states.state_dict import Signature
from bitinfer.zoo.data import PREPROCESSING


def _width(m: Modules, name: str) -> int:
    return m.state.first_axis(f"{name}.weight") or 0


def _conv(
    m: Modules,
    name: str,
    x: str,
    shape: tuple[int, int, int],
    *,
    stride: int = 1,
    padding: int = 0,
    has_bias: bool = True,
) -> str:
    """Write a BinarizeConv2d: what has 3 channels is the picture, and stays real."""
    if shape[1] != 3:
        x = m.sign(f"{name}.sign", x)
    bias = f"{name}.bias" if has_bias else ""
    return m.conv(name, x, shape, stride=stride, padding=padding, bias=bias, binarise=signs)


def _classifier(m: Modules, x: str, inputs: int, side: int, *, affine: bool) -> str:
    """Write the three dense layers of VGG and AlexNet."""
    flattened: tuple[int, int] | None = (side, side)
    x = m.add("flat", "flatten", m.sign("classifier.0.sign", x))
    for position in (0, 3, 6):
        name, norm = f"classifier.{position}", f"classifier.{position + 1}"
        outputs = _width(m, name)
        if position:
            x = m.sign(f"{name}.sign", x)
        x = m.dense(name, x, (outputs, inputs), flattened=flattened, binarise=signs)
        x = m.norm(norm, x, outputs, affine=affine or position != 6)
        inputs, flattened = outputs, None
    return x


Step = tuple[int, int, int, int, bool]
"""Of a convolution: position, kernel, stride, padding, and whether a maximum follows it."""

VGG: Sequence[Step] = tuple(
    (position, 3, 1, 1, bool(i % 2)) for i, position in enumerate((0, 3, 7, 10, 14, 17))
)
ALEXNET: Sequence[Step] = (
    (0, 11, 4, 2, True),
    (4, 5, 1, 2, True),
    (8, 3, 1, 1, False),
    (11, 3, 1, 1, False),
    (14, 3, 1, 1, True),
)


def _features(m: Modules, steps: Sequence[Step], pool: int) -> tuple[str, int]:
    """Write the convolutions; return the last value and its channels."""
    x, channels = INPUT, 3
    for position, kernel, stride, padding, is_pooled in steps:
        name = f"features.{position}"
        shape = (_width(m, name), channels, kernel)
        x = _conv(m, name, x, shape, stride=stride, padding=padding)
        if is_pooled:
            position += 1
            x = m.max_pool(f"features.{position}", x, pool, 2)
        x = m.norm(f"features.{position + 1}", x, shape[0])
        channels = shape[0]
    return x, channels


def _vgg(m: Modules) -> str:
    m.shape = (3, 32, 32)
    x, channels = _features(m, VGG, 2)
    return _classifier(m, x, channels * 16, 4, affine=False)


def _alexnet(m: Modules) -> str:
    m.shape = (3, 224, 224)
    x, channels = _features(m, ALEXNET, 3)
    return _classifier(m, x, channels * 36, 6, affine=True)


def _resnet(m: Modules) -> str:
    m.shape = (3, 32, 32)
    channels = _width(m, "conv1")
    x = _conv(m, "conv1", INPUT, (channels, 3, 3), padding=1, has_bias=False)
    x = _hardtanh(m, "tanh1", m.norm("bn1", x, channels))
    for stage in (1, 2, 3):
        blocks = m.count_blocks(f"layer{stage}.{{}}.conv1.weight")
        if blocks < 2:
            raise CheckpointError(
                f"layer{stage} has {blocks} blocks; {m.state.owner} has 2 or more"
            )
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            width, stride = _width(m, f"{name}.conv1"), 2 if stage > 1 and block == 0 else 1
            x = _block(m, name, x, (width, channels), stride)
            channels = width
            if stage == 3 and block == blocks - 1:
                # Made without do_bntan: its second BatchNorm is stored, and never used.
                m.norm(f"{name}.bn2", x, width)
            else:
                x = _hardtanh(m, f"{name}.tanh2", m.norm(f"{name}.bn2", x, width))
    x = m.add("flat", "flatten", m.avg_pool("avgpool", x, 8, 8))
    x = m.sign("fc.sign", m.norm("bn2", x, channels))
    classes = m.classes("fc")
    return m.norm("bn3", m.dense("fc", x, (classes, channels), binarise=signs), classes)


def _block(m: Modules, name: str, x: str, widths: tuple[int, int], stride: int) -> str:
    width, channels = widths
    y = _conv(m, f"{name}.conv1", x, (width, channels, 3), stride=stride, padding=1, has_bias=False)
    y = m.norm(f"{name}.bn1", y, width)
    y = _conv(m, f"{name}.conv2", y, (width, width, 3), padding=1, has_bias=False)
    if stride != 1 or channels != width:
        shape = (width, channels, 1)
        x = _conv(m, f"{name}.downsample.0", x, shape, stride=stride, has_bias=False)
        x = m.norm(f"{name}.downsample.1", x, width)
    return m.add(f"{name}.add", "add", y, x)


def _hardtanh(m: Modules, name: str, x: str) -> str:
    return m.add(name, "clip", x, low=-1.0, high=1.0)


_VGG_SIGNATURE: Signature = {
    "features.0.weight": (None, 3, 3, 3),
    "features.17.weight": (None, None, 3, 3),
    "features.19.running_mean": (None,),
    "classifier.6.weight": (None, None),
    "classifier.7.running_mean": (None,),
}
_ALEXNET_SIGNATURE: Signature = {
    "features.0.weight": (None, 3, 11, 11),
    "features.2.running_mean": (None,),
    "features.14.weight": (None, None, 3, 3),
    "features.16.running_mean": (None,),
    "classifier.7.running_mean": (None,),
}
_RESNET_SIGNATURE: Signature = {
    "conv1.weight": (None, 3, 3, 3),
    "layer2.0.downsample.0.weight": (None, None, 1, 1),
    "layer3.1.conv2.weight": (None, None, 3, 3),
    "bn3.running_mean": (None,),
    "fc.bias": (None,),
}

# preprocess.py: the mean and std of ImageNet for CIFAR-10, too.
NETWORKS = (
    StateNetwork(
        "binary_net",
        "BinaryNet's VGG",
        _VGG_SIGNATURE,
        "cifar10",
        PREPROCESSING["cifar10", "xnor-net-pytorch"],
        _vgg,
    ),
    StateNetwork(
        "binary_net",
        "BinaryNet's AlexNet",
        _ALEXNET_SIGNATURE,
        "imagenet",
        PREPROCESSING["imagenet", "torchvision"],
        _alexnet,
    ),
    StateNetwork(
        "binary_net",
        "BinaryNet's ResNet for CIFAR",
        _RESNET_SIGNATURE,
        "cifar10",
        PREPROCESSING["cifar10", "xnor-net-pytorch"],
        _resnet,
    ),
)
