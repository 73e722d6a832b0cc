"""XNOR-Net LeNet-5 on MNIST: the network, how it is trained, and its export to a model file.

The network is that of Rastegari et al. 2016 (arXiv 1603.05279) as its authors' PyTorch code lays
it out; the first and the last layer stay in float:

    input            28 x 28 x 1     (pixel / 255 - 0.1307) / 0.3081
    conv 5x5         24 x 24 x 20    + BatchNorm without gamma and beta, ReLU
    max-pool 2       12 x 12 x 20    BatchNorm, sign
    bconv 5x5         8 x  8 x 50    + bias, ReLU
    max-pool 2        4 x  4 x 50    BatchNorm, sign, flattened channel by channel
    bdense           500             + bias, ReLU
    dense             10             logits

Three things matter for the accuracy beyond the paper: distorted copies of the digits instead of
the digits themselves, a learning rate that falls to zero, and BatchNorm statistics that are
measured anew on undistorted digits before the network is used.
"""

from __future__ import annotations

import dataclasses
import math
import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from bitinfer import datasets, modelfile
from bitinfer._version import __version__
from bitinfer.errors import DataError
from bitinfer.files import check_writable
from bitinfer.graph import GraphBuilder
from bitinfer.model import Model, Preprocessing, Provenance
from bitinfer.numerics import normalization_table
from bitinfer.train.xnor import BinaryConv2d, BinaryLinear, binarise, project_weights

NAME = "xnor-lenet5-mnist"
LABELS = tuple(str(digit) for digit in range(10))

PIXEL_SCALE = 1 / 255
PIXEL_MEAN = 0.1307
PIXEL_STD = 0.3081
"""Mean and standard deviation over the training images, of pixels scaled to 0..1."""

SIDE = 28
VALIDATION_IMAGES = 5_000
"""How many images at the end of the training set are never trained on."""
EPSILON = 1e-4
"""BatchNorm's epsilon, as in the authors' code."""
MIN_GAMMA = 0.01
"""Lower bound of BatchNorm's gamma before a sign, as in the authors' code: a channel keeps its
direction while training."""
EVALUATION_BATCH = 500

Images = NDArray[np.uint8]
Labels = NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides how a training run ends, up to the rounding of the machine.

    Attributes:
        epochs: passes over the training images.
        seed: of the initial weights, the order of the images and their distortion.
        batch_size: images per optimiser step.
        learning_rate: of Adam, at its highest: reached linearly within the first epoch, then
            falling to 0 along half a cosine.
        rotation: largest angle, in degrees, to either side.
        stretch: largest relative change of width and of height.
        shear: largest horizontal shift per unit of height.
        shift: largest displacement, in pixels, along either axis.
        warp: largest displacement, in pixels, of the knots of the elastic distortion.
    """

    epochs: int = 60
    seed: int = 0
    batch_size: int = 128
    learning_rate: float = 3e-3
    rotation: float = 10.0
    stretch: float = 0.1
    shear: float = 0.1
    shift: float = 2.0
    warp: float = 1.5


@dataclasses.dataclass(frozen=True, eq=False)
class Digits:
    """Some digits: images (n, 28, 28) uint8, 0 is background; labels (n,) uint8, 0..9."""

    images: Images
    labels: Labels

    def __len__(self) -> int:
        return len(self.images)


@dataclasses.dataclass(frozen=True)
class Step:
    """Where a training run stands; ``validation`` (correct, of) only at the end of an epoch."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    validation: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How many digits the finished network gets right, as (correct, of)."""

    validation: tuple[int, int]
    test: tuple[int, int]


class LeNet5(nn.Module):
    """The network of the module's description; x (n, 1, 28, 28) -> logits (n, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.norm1 = nn.BatchNorm2d(20, eps=EPSILON, affine=False)
        self.norm2 = nn.BatchNorm2d(20, eps=EPSILON)
        self.conv2 = BinaryConv2d(20, 50, 5)
        self.norm3 = nn.BatchNorm2d(50, eps=EPSILON)
        self.dense1 = BinaryLinear(800, 500)
        self.dense2 = nn.Linear(500, 10)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 - described by the class
        # Maximum and ReLU commute; in this order ReLU sees a quarter of the values.
        x = functional.relu(functional.max_pool2d(self.norm1(self.conv1(x)), 2))
        x = functional.relu(functional.max_pool2d(self.conv2(self.norm2(x)), 2))
        x = functional.relu(self.dense1(self.norm3(x).flatten(1)))
        logits: Tensor = self.dense2(x)
        return logits


def read_digits(data: Path) -> tuple[Digits, Digits, Digits]:
    """Read the four MNIST files under ``data`` as (training, validation, test) digits.

    Raises:
        DataError: a file is missing, damaged, or does not hold MNIST's shapes.
    """
    train, test = _read_pair(data, "train"), _read_pair(data, "t10k")
    if len(train) <= VALIDATION_IMAGES:
        raise DataError(
            f"{data}: {len(train)} training images, wanted more than the {VALIDATION_IMAGES} "
            "that are held out for validation"
        )
    split = len(train) - VALIDATION_IMAGES
    return (
        Digits(train.images[:split], train.labels[:split]),
        Digits(train.images[split:], train.labels[split:]),
        test,
    )


def train(
    network: LeNet5,
    training: Digits,
    validation: Digits,
    recipe: Recipe,
    *,
    report: Callable[[Step], None] = lambda step: None,
) -> None:
    """Train ``network`` in place and leave it ready for evaluation.

    Meaning: the same network, digits, recipe and number of threads give the same weights on the
             same machine.  The validation digits are only reported on; nothing depends on them.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    pixels = torch.from_numpy(training.images).float().mul_(PIXEL_SCALE)[:, None]
    labels = torch.from_numpy(training.labels).long()
    steps = max(1, len(training) // recipe.batch_size)
    optimiser = torch.optim.Adam(network.parameters())
    # PyTorch's CPU convolutions and pooling are faster on channel-minor tensors.
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for epoch in range(recipe.epochs):
        network.train()
        order = torch.randperm(len(training), generator=generator)
        for step in range(steps):
            done = (epoch * steps + step) / (recipe.epochs * steps)
            for group in optimiser.param_groups:
                group["lr"] = _learning_rate(recipe, done)
            chosen = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
            batch = distort(pixels[chosen], recipe, generator=generator)
            batch = batch.sub_(PIXEL_MEAN).div_(PIXEL_STD)
            batch = batch.contiguous(memory_format=torch.channels_last)
            loss = functional.cross_entropy(network(batch), labels[chosen])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            _constrain(network)
            report(Step(epoch + 1, recipe.epochs, step + 1, steps, loss.item()))
        calibrate(network, training)
        right = count_correct(network, validation)
        outcome = (right, len(validation))
        report(Step(epoch + 1, recipe.epochs, steps, steps, loss.item(), outcome))


def distort(pixels: Tensor, recipe: Recipe, *, generator: torch.Generator) -> Tensor:
    """Return a randomly distorted copy of every picture, black outside.

    Shapes:  (n, 1, h, w), black = 0  ->  the same.
    Meaning: a random affine map (rotation, stretch, shear, shift) plus an elastic displacement
             field, bicubic between 5 x 5 random knots: a coarse form of Simard, Steinkraus and
             Platt, "Best Practices for Convolutional Neural Networks", ICDAR 2003.
    """
    n, _, height, width = pixels.shape

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator) * 2 - 1

    angle = uniform(n) * math.radians(recipe.rotation)
    across, down = 1 + uniform(n) * recipe.stretch, 1 + uniform(n) * recipe.stretch
    shear = uniform(n) * recipe.shear
    # The sampling grid runs from -1 to 1, so one pixel is 2 / side.
    pixel = torch.tensor([2 / width, 2 / height])
    shift = uniform(n, 2) * recipe.shift * pixel
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = (
        torch.stack([cos * across, shear - sin * down, shift[:, 0]], dim=1),
        torch.stack([sin * across, cos * down, shift[:, 1]], dim=1),
    )
    grid = functional.affine_grid(torch.stack(rows, dim=1), list(pixels.shape), align_corners=False)
    knots = uniform(n, 2, 5, 5) * recipe.warp
    field = functional.interpolate(knots, size=(height, width), mode="bicubic", align_corners=True)
    grid += field.permute(0, 2, 3, 1) * pixel
    return functional.grid_sample(pixels, grid, align_corners=False)


@torch.no_grad()
def calibrate(network: LeNet5, digits: Digits, *, limit: int = 10_000) -> None:
    """Measure BatchNorm's means and variances anew, as averages over undistorted digits.

    The running averages of training describe distorted digits, and of those the last few batches
    only.  Every sign is taken against a threshold made of them, so that would cost accuracy.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        # None: the plain average over all batches since the reset.
        norm.momentum = None
    network.train()
    for start in range(0, min(limit, len(digits)), EVALUATION_BATCH):
        network(_normalise(digits.images[start : start + EVALUATION_BATCH]))
    network.eval()


@torch.no_grad()
def count_correct(network: LeNet5, digits: Digits) -> int:
    """Return how many digits get their largest logit at their label."""
    network.eval()
    correct = 0
    for start in range(0, len(digits), EVALUATION_BATCH):
        found = network(_normalise(digits.images[start : start + EVALUATION_BATCH])).argmax(dim=1)
        wanted = digits.labels[start : start + EVALUATION_BATCH]
        correct += int(np.count_nonzero(found.numpy() == wanted))
    return correct


def export(network: LeNet5, *, notes: tuple[str, ...] = ()) -> Model:
    """Return the network as a model: binary weights packed, labels and preprocessing included."""
    b = GraphBuilder(NAME, input_shape=(SIDE, SIDE, 1))
    x = b.conv2d(b.input, _filters(network.conv1.weight), _array(network.conv1.bias), name="conv1")
    x = b.max_pool2d(b.relu(_add_norm(b, x, network.norm1, "norm1")), 2)
    conv2 = binarise(network.conv2.weight)
    x = b.bconv2d(
        b.sign(_add_norm(b, x, network.norm2, "norm2")),
        _filters(conv2.signs),
        alpha=_array(conv2.alpha),
        bias=_array(network.conv2.bias),
        name="conv2",
    )
    x = b.max_pool2d(b.relu(x), 2)
    dense1 = binarise(network.dense1.weight)
    x = b.bdense(
        b.flatten(b.sign(_add_norm(b, x, network.norm3, "norm3")), "channels_first"),
        _array(dense1.signs),
        alpha=_array(dense1.alpha),
        bias=_array(network.dense1.bias),
        name="dense1",
    )
    x = b.dense(
        b.relu(x), _array(network.dense2.weight), _array(network.dense2.bias), name="dense2"
    )
    graph, tensors = b.build(x)
    return Model(
        graph=graph,
        tensors=tensors,
        labels=LABELS,
        preprocessing=Preprocessing(
            color="grey",
            mean=(PIXEL_MEAN,),
            std=(PIXEL_STD,),
            scale=PIXEL_SCALE,
            resize=(SIDE, SIDE),
        ),
        provenance=Provenance(
            importer="bitinfer train lenet5-mnist",
            source="MNIST",
            versions={
                "bitinfer": __version__,
                "python": platform.python_version(),
                "torch": str(torch.__version__),
            },
            notes=notes,
        ),
    )


def build(recipe: Recipe) -> LeNet5:
    """Return the untrained network of ``recipe.seed``; the global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return LeNet5()


def run(
    data: Path,
    output: Path,
    recipe: Recipe,
    *,
    threads: int = 1,
    report: Callable[[Step], None] = lambda step: None,
) -> Outcome:
    """Train on the MNIST files under ``data`` and write the model file ``output``.

    Meaning: the test digits are looked at once, after the last step.  ``output`` is written whole
             or not at all.
    Cost:    tens of minutes on one core, and some 600 MB of memory, with the default recipe.
    Raises:  OutputError, before training, if ``output`` cannot be written; DataError.
    """
    check_writable(output)
    training, validation, test = read_digits(data)
    torch.set_num_threads(threads)
    network = build(recipe)
    train(network, training, validation, recipe, report=report)
    outcome = Outcome(
        validation=(count_correct(network, validation), len(validation)),
        test=(count_correct(network, test), len(test)),
    )
    notes = (
        f"epochs {recipe.epochs}, seed {recipe.seed}, threads {threads}",
        "validation {} of {} correct".format(*outcome.validation),
        "test {} of {} correct".format(*outcome.test),
    )
    modelfile.save(export(network, notes=notes), output)
    return outcome


def _read_pair(data: Path, prefix: str) -> Digits:
    images = datasets.read_idx(_find(data, f"{prefix}-images-idx3-ubyte"))
    labels = datasets.read_idx(_find(data, f"{prefix}-labels-idx1-ubyte"))
    if images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE):
        raise DataError(
            f"{data}: the {prefix} images are {images.dtype} of shape {images.shape}, "
            f"wanted uint8 (n, {SIDE}, {SIDE})"
        )
    if labels.dtype != np.uint8 or labels.shape != images.shape[:1]:
        raise DataError(
            f"{data}: the {prefix} labels are {labels.dtype} of shape {labels.shape}, "
            f"wanted uint8 ({len(images)},)"
        )
    if len(labels) == 0 or labels.max() >= len(LABELS):
        raise DataError(f"{data}: the {prefix} labels are empty or not all within 0 to 9")
    # torch.from_numpy wants an array that it may write to.
    return Digits(np.array(images), np.array(labels))


def _find(data: Path, name: str) -> Path:
    # Unpacked copies often bear a dot before idx.
    for stem in (name, name.replace("-idx", ".idx")):
        for candidate in (data / f"{stem}.gz", data / stem):
            if candidate.is_file():
                return candidate
    raise DataError(f"{data}: holds neither {name}.gz nor {name}; --data names MNIST's directory")


def _normalise(images: Images) -> Tensor:
    """Return images (n, 28, 28) as the network's input, rounded exactly as at inference."""
    table = normalization_table(PIXEL_SCALE, (PIXEL_MEAN,), (PIXEL_STD,))[:, 0]
    x = torch.from_numpy(table[images])[:, None]
    return x.contiguous(memory_format=torch.channels_last)


def _learning_rate(recipe: Recipe, done: float) -> float:
    """Return the learning rate when ``done`` (0..1) of all steps are behind."""
    warm_up = min(1.0, done * recipe.epochs)
    return recipe.learning_rate * warm_up * 0.5 * (1 + math.cos(math.pi * done))


@torch.no_grad()
def _constrain(network: LeNet5) -> None:
    project_weights(network)
    for norm in (network.norm2, network.norm3):
        norm.weight.clamp_(min=MIN_GAMMA)


def _array(tensor: Tensor | None) -> NDArray[np.float32]:
    assert tensor is not None
    result: NDArray[np.float32] = tensor.detach().numpy()
    return result


def _filters(weight: Tensor) -> NDArray[np.float32]:
    """Return PyTorch's (out, in, kh, kw) as (out, kh, kw, in)."""
    return _array(weight.permute(0, 2, 3, 1))


def _add_norm(b: GraphBuilder, x: str, norm: nn.BatchNorm2d, name: str) -> str:
    return b.batch_norm(
        x,
        _array(norm.running_mean),
        _array(norm.running_var),
        _array(norm.weight) if norm.affine else None,
        _array(norm.bias) if norm.affine else None,
        epsilon=norm.eps,
        name=name,
    )
