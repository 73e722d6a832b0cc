"""Which gradient of alpha * sign(w) is right? A check that anyone can run.

    python examples/scaled_sign_gradient.py                    # the gradients, in seconds
    python examples/scaled_sign_gradient.py --mnist DIRECTORY  # their effect, in minutes

docs/training-gradients.md derives what this measures.  Needs PyTorch.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch

from bitinfer.train.digits import read_digits
from bitinfer.train.gradients import layer_errors
from bitinfer.train.layers import BinaryConv2d, BinaryLinear
from bitinfer.train.loop import Recipe, Run
from bitinfer.train.recipes.networks import SPECS, build, task

KINDS = ("full", "diagonal")


def compare_with_differences() -> None:
    """Print how far each gradient is from finite differences, for a few layers."""
    print("relative error against central differences in float64")
    print(f"{'layer':24} {'full':>10} {'diagonal':>10}")
    makers = {
        "dense 32 -> 8": lambda kind: (BinaryLinear(32, 8, gradient=kind), torch.randn(4, 32)),
        "conv 3x3, 4 -> 6": lambda kind: (
            BinaryConv2d(4, 6, 3, gradient=kind),
            torch.randn(2, 4, 6, 6),
        ),
    }
    for name, make in makers.items():
        errors = []
        for kind in KINDS:
            torch.manual_seed(0)
            errors.append(layer_errors(*make(kind))["weight"])
        print(f"{name:24} {errors[0]:10.1e} {errors[1]:10.1e}")


def compare_accuracy(directory: Path, seeds: int, images: int, epochs: int) -> None:
    """Train LeNet-5 with each gradient and print how many validation digits it gets right."""
    training, validation, _ = read_digits(directory)
    training = training.part(0, images)
    spec = SPECS["lenet5-mnist"]
    print(f"LeNet-5, {images} digits, {epochs} epochs: % right of {len(validation)}, by seed")
    for kind in KINDS:
        found = []
        for seed in range(seeds):
            recipe = Recipe(epochs=epochs, learning_rate=3e-3, seed=seed)
            network = build(spec, seed)
            network.bin_conv2.conv.gradient = kind
            network.bin_ip1.linear.gradient = kind
            run = Run(task(spec, network, training, validation), recipe)
            run.train()
            found.append(100 * run.curve[-1].validation_accuracy)
        mean, spread = statistics.mean(found), statistics.stdev(found)
        each = " ".join(f"{v:.2f}" for v in found)
        print(f"{kind:10} mean {mean:.2f}, deviation {spread:.2f}: {each}", flush=True)


def main() -> None:
    """Read the arguments and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path, metavar="DIRECTORY", help="the four files of MNIST")
    parser.add_argument("--seeds", type=int, default=5, metavar="N")
    parser.add_argument("--images", type=int, default=10_000, metavar="N")
    parser.add_argument("--epochs", type=int, default=5, metavar="N")
    arguments = parser.parse_args()
    compare_with_differences()
    if arguments.mnist is not None:
        compare_accuracy(arguments.mnist, arguments.seeds, arguments.images, arguments.epochs)


if __name__ == "__main__":
    main()
