"""Sizes at which the networks of the zoo are tested: small ones take a tenth of the time."""

from __future__ import annotations

from bitinfer import zoo

SMALL_ALEXNET = (67, 67, 3)
"""The smallest map that leaves a pixel for its first dense layer."""


def small_shape(name: str) -> zoo.Shape:
    """Return an input shape of a network that keeps all of its layers, but few pixels."""
    height, width, channels = zoo.find(name).input_shape
    if name == "xnor-alexnet":
        return SMALL_ALEXNET
    return (min(height, 64), min(width, 64), channels)
