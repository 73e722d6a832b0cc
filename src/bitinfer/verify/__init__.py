"""Proves that a network computes what its source computes, or names the layer where they part.

    source --simulate, in float64--> every value   |
    model  --passes, observed------> every value   |--> compared sign by sign, in order

compare    what is compared, what a tie is, and the verdict
differences    what a difference is
runtime    the source by the framework's own runtime, where that is installed
by_torch   the network of a state dict by torch
explain    tries what could explain the first difference
page       the verdict as an HTML page with maps of signs
"""

from bitinfer.verify.compare import SignCheck, Verification, normalised, random_inputs
from bitinfer.verify.compare import verify as verify
from bitinfer.verify.differences import Difference

__all__ = ["Difference", "SignCheck", "Verification", "normalised", "random_inputs", "verify"]
