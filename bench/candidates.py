"""Latency of bitres layouts with random weights, before any is trained.

    python bench/candidates.py [--rounds N] [--integer-ends]

Prints, for each layout (blocks x channels of every stage), its binary multiply-accumulates and the
shortest of N calls with one picture and one thread.  Nothing else should run meanwhile: of several
processes on a core, even the shortest call is too long.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from bitinfer import zoo
from bitinfer.integer_ends import integer_ends
from bitinfer.model import Model
from bitinfer.session import Session
from bitinfer.zoo.bitres_net import Stages, bitres
from bitinfer.zoo.data import PREPROCESSING

LAYOUTS: tuple[Stages, ...] = (
    ((2, 64), (2, 128), (2, 256)),
    ((3, 64), (2, 128), (2, 256)),
    ((2, 64), (4, 128), (2, 256)),
    ((3, 64), (4, 128), (2, 256)),
    ((3, 64), (4, 128), (3, 256)),
    ((4, 64), (4, 128), (4, 256)),
    ((4, 64), (6, 128), (4, 256)),
    ((6, 64), (6, 128), (6, 256)),
    ((4, 128), (4, 256)),
    ((4, 128), (4, 256), (2, 512)),
    ((6, 128), (6, 256), (4, 512)),
)


def binary_macs(stages: Stages) -> int:
    """Return the multiply-accumulates of all binary layers, padded taps included."""
    total, side, before = 0, 16, stages[0][1]
    for count, width in stages:
        if width != before:
            side //= 2
        for _ in range(count):
            total += side * side * 9 * before * width
            before = width
    return total


def shortest_call(stages: Stages, rounds: int, *, has_integer_ends: bool) -> float:
    """Return the shortest of ``rounds`` calls, in milliseconds."""
    graph, tensors = bitres("candidate", stages, zoo.RandomParameters(0), 10, (32, 32, 3))
    model = Model(graph, tensors, preprocessing=PREPROCESSING["cifar10", "binary-net"])
    if has_integer_ends:
        model = integer_ends(model).model
    session = Session(model)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    shortest = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        session.run(pixels)
        shortest = min(shortest, time.perf_counter() - start)
    return 1e3 * shortest


def main() -> None:
    """Measure every layout and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3000, metavar="N")
    parser.add_argument("--integer-ends", action="store_true", help="first and last layer too")
    arguments = parser.parse_args()
    print("| layout | binary MACs | shortest call |\n|---|---|---|")
    for stages in LAYOUTS:
        name = ", ".join(f"{count} x {width}" for count, width in stages)
        ms = shortest_call(stages, arguments.rounds, has_integer_ends=arguments.integer_ends)
        print(f"| {name} | {binary_macs(stages) / 1e6:.0f} M | {ms:.3f} ms |", flush=True)


if __name__ == "__main__":
    main()
