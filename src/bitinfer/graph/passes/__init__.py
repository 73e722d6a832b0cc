"""Passes: rewrites of the graph that keep its results and make it faster.

Every pass is a pure function from one checked graph to another.
PASSES lists them in the order in which they run when a network is loaded; a file holds the graph as
it was imported.  Binary results stay the same bits; float results may differ by rounding, where a
pass says so.  A value closer to a threshold than that rounding may get another sign.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np

from bitinfer.graph.checked import CheckedGraph
from bitinfer.graph.passes.fuse import (
    fold_batch_norm,
    fold_padding,
    fuse_activation,
    fuse_residual,
    fuse_signs,
)
from bitinfer.graph.passes.identities import drop_identities
from bitinfer.graph.passes.signs import fold_signs, max_pool_after_sign, sign_before_flatten
from bitinfer.names import unknown

Pass = Callable[[CheckedGraph], CheckedGraph]

PASSES: tuple[Pass, ...] = (
    drop_identities,
    fold_padding,
    sign_before_flatten,
    max_pool_after_sign,
    fold_signs,
    fold_batch_norm,
    fuse_residual,
    fuse_activation,
    fuse_signs,
)
"""In order.  Signs fold first: what they swallow needs no arithmetic any more."""

NAMES = tuple(function.__name__ for function in PASSES)


def optimise(checked: CheckedGraph, skip: Collection[str] = ()) -> CheckedGraph:
    """Run all passes but those named in ``skip``, one name or several; ``all`` names every pass.

    Raises:
        UnknownNameError: ``skip`` names no pass.
    """
    skip = (skip,) if isinstance(skip, str) else skip
    if strangers := sorted(set(skip) - {*NAMES, "all"}):
        raise unknown("pass", strangers[0], (*NAMES, "all"))
    with np.errstate(all="ignore"):
        for function in PASSES:
            if function.__name__ not in skip and "all" not in skip:
                checked = function(checked)
    return checked


__all__ = ["NAMES", "PASSES", "Pass", "optimise"]
