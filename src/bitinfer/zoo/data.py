"""Data sets that networks of the zoo are trained on: their labels, and how pixels become inputs.

The same picture enters a network differently in every framework, and nothing in the weights says
how.  Each entry of :data:`PREPROCESSING` names the file that it was read from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from bitinfer.model import Preprocessing

DataSet = Literal["mnist", "cifar10", "imagenet"]
Framework = Literal["xnor-net-pytorch", "torchvision", "binary-net"]

LABELS: Mapping[DataSet, tuple[str, ...]] = {
    "mnist": tuple("0123456789"),
    # batches.meta of the data set (Krizhevsky 2009).
    "cifar10": (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ),
    # A file of 1000 names is the caller's to give.
    "imagenet": (),
}
"""Names of the classes in the order of the network's outputs; empty where none are kept here."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of ImageNet's training pictures, RGB scaled to 0..1, as torchvision's models have them."""

PREPROCESSING: Mapping[tuple[DataSet, Framework], Preprocessing] = {
    # MNIST/main.py: ToTensor, Normalize((0.1307,), (0.3081,)).
    ("mnist", "xnor-net-pytorch"): Preprocessing("grey", (0.1307,), (0.3081,), resize=(28, 28)),
    # The data set of CIFAR_10/data.py was normalised beforehand and is not published with its
    # constants; these are the usual ones.
    ("cifar10", "xnor-net-pytorch"): Preprocessing(
        "rgb", IMAGENET_MEAN, IMAGENET_STD, resize=(32, 32)
    ),
    # ImageNet/networks/main.py: Resize((256, 256)), CenterCrop(227), Normalize(mean, std=1/255).
    ("imagenet", "xnor-net-pytorch"): Preprocessing(
        "rgb", IMAGENET_MEAN, (1 / 255,) * 3, resize=(256, 256), crop=(227, 227)
    ),
    # references/classification/presets.py: Resize(256), CenterCrop(224), ToTensor, Normalize.
    ("imagenet", "torchvision"): Preprocessing(
        "rgb", IMAGENET_MEAN, IMAGENET_STD, resize=256, crop=(224, 224)
    ),
    # Train-time/cifar10.py: X = 2 * X / 255 - 1; mnist.py: 2 * X - 1 of pixels 0..1.
    ("mnist", "binary-net"): Preprocessing("grey", (0.5,), (0.5,), resize=(28, 28)),
    ("cifar10", "binary-net"): Preprocessing("rgb", (0.5,) * 3, (0.5,) * 3, resize=(32, 32)),
}
"""How a picture becomes the input, by data set and by the framework that trained the network."""
