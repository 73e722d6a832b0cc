"""XNOR-Net-PyTorch's networks as foreign graphs: what ``bitinfer verify`` compares models with.

Source: jiecaoyu/XNOR-Net-PyTorch, MNIST/models/LeNet_5.py, CIFAR_10/models/nin.py and
ImageNet/networks/model_list/alexnet.py.  ``xnor_net`` makes models of the same state dicts from the
networks of the zoo; nothing here follows from these.
"""

from __future__ import annotations

from bitinfer.importers import binary
from bitinfer.importers.states import xnor_net
from bitinfer.importers.states.modules import INPUT, Modules, StateNetwork, scaled_by

BINARISE = scaled_by(binary.CENTRED_AND_CLIPPED)
EPSILON = 1e-4
_LAST_EPSILON = 1e-3
"""Of AlexNet's last BatchNorm."""


def _block(
    m: Modules,
    name: str,
    x: str,
    shape: tuple[int, int, int],
    padding: int = 0,
    lowest: float | None = xnor_net.MIN_GAMMA,
) -> str:
    """BatchNorm, sign, convolution, bias, ReLU."""
    x = m.norm(f"{name}.bn", x, shape[1], epsilon=EPSILON, lowest_gamma=lowest)
    x = m.sign(f"{name}.sign", x)
    conv = f"{name}.conv"
    x = m.conv(conv, x, shape, padding=padding, bias=f"{conv}.bias", binarise=BINARISE)
    return m.add(f"{conv}.relu", "relu", x)


def _first(
    m: Modules,
    names: tuple[str, str],
    shape: tuple[int, int, int],
    *,
    stride: int = 1,
    padding: int = 0,
) -> str:
    """Convolution, BatchNorm, ReLU."""
    conv, norm = names
    x = m.conv(conv, INPUT, shape, stride=stride, padding=padding, bias=f"{conv}.bias")
    affine = norm == "features.1"
    return m.add(f"{norm}.relu", "relu", m.norm(norm, x, shape[0], epsilon=EPSILON, affine=affine))


def _lenet5(m: Modules) -> str:
    m.shape = (1, 28, 28)
    x = m.max_pool("pool1", _first(m, ("conv1", "bn_conv1"), (20, 1, 5)), 2, 2)
    x = m.max_pool("pool2", _block(m, "bin_conv2", x, (50, 20, 5)), 2, 2)
    x = m.norm("bin_ip1.bn", x, 50, epsilon=EPSILON, lowest_gamma=xnor_net.MIN_GAMMA)
    x = m.add("flat", "flatten", m.sign("bin_ip1.sign", x))
    x = m.dense("bin_ip1.linear", x, (500, 800), flattened=(4, 4), binarise=BINARISE)
    return m.dense("ip2", m.add("bin_ip1.relu", "relu", x), (m.classes("ip2"), 500))


def _nin(m: Modules) -> str:
    m.shape = (3, 32, 32)
    x = _first(m, ("xnor.0", "xnor.1"), (192, 3, 5), padding=2)
    x = _block(m, "xnor.3", x, (160, 192, 1))
    x = m.max_pool("xnor.5", _block(m, "xnor.4", x, (96, 160, 1)), 3, 2, 1)
    x = _block(m, "xnor.6", x, (192, 96, 5), 2)
    for name in ("xnor.7", "xnor.8"):
        x = _block(m, name, x, (192, 192, 1))
    x = _block(m, "xnor.10", m.avg_pool("xnor.9", x, 3, 2, 1), (192, 192, 3), 1)
    x = _block(m, "xnor.11", x, (192, 192, 1))
    x = m.norm("xnor.12", x, 192, epsilon=EPSILON, affine=False)
    x = m.conv("xnor.13", x, (m.classes("xnor.13"), 192, 1), bias="xnor.13.bias")
    x = m.avg_pool("xnor.15", m.add("xnor.14", "relu", x), 8, 1)
    return m.add("flat", "flatten", x)


def _alexnet(m: Modules) -> str:
    m.shape = (3, 227, 227)
    x = _first(m, ("features.0", "features.1"), (96, 3, 11), stride=4)
    x = m.max_pool("features.3", x, 3, 2)
    x = m.max_pool("features.5", _block(m, "features.4", x, (256, 96, 5), 2, None), 3, 2)
    for name, shape in (("6", (384, 256, 3)), ("7", (384, 384, 3)), ("8", (256, 384, 3))):
        x = _block(m, f"features.{name}", x, shape, 1, None)
    x = m.add("flat", "flatten", m.max_pool("features.9", x, 3, 2))
    inputs = 256 * 36
    flattened: tuple[int, int] | None = (6, 6)
    for name in ("classifier.0", "classifier.1"):
        x = m.norm(f"{name}.bn", x, inputs, epsilon=EPSILON, flattened=flattened)
        x = m.dense(
            f"{name}.linear",
            m.sign(f"{name}.sign", x),
            (4096, inputs),
            flattened=flattened,
            binarise=BINARISE,
        )
        x, inputs, flattened = m.add(f"{name}.relu", "relu", x), 4096, None
    x = m.norm("classifier.2", x, 4096, epsilon=_LAST_EPSILON)
    return m.dense("classifier.4", x, (m.classes("classifier.4"), 4096))


NETWORKS = tuple(
    StateNetwork(
        xnor_net.IMPORTER,
        name,
        xnor_net.SIGNATURES[name],
        xnor_net.DATA_SETS[name],
        xnor_net.PREPROCESSING[name],
        write,
    )
    for name, write in (("xnor-lenet5", _lenet5), ("xnor-nin", _nin), ("xnor-alexnet", _alexnet))
)
