"""Where in a checkpoint the weights are: under which key, behind which prefix of names.

Training loops keep the weights under a key of their choice, beside optimiser, log and a second,
averaged set; wrappers put their attribute before every name, and counters beside the tensors.  The
signatures of the architectures that can be read (names and shapes) decide what is meant, not the
words that loops happen to use.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bitinfer.errors import CheckpointError
from bitinfer.importers.readers._unpickle import Inert, quoted
from bitinfer.importers.states.state_dict import Signature, StateDict

_WRAPPERS = frozenset(
    {
        "module",  # DataParallel, DistributedDataParallel, AveragedModel
        "_orig_mod",  # torch.compile
        "_fsdp_wrapped_module",
        "_checkpoint_wrapped_module",
        "_forward_module",  # Lightning Fabric
    }
)
"""Attributes that wrap any module, wherever in a name they stand."""

_OWNERS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "weights",
    "params",
    "online_model",
)
"""What training loops call the weights that they train, the most usual first."""

_AVERAGED = frozenset({"ema", "avg", "average", "averaged", "shadow", "swa", "teacher", "target"})
"""Words for a second set of weights that follows the first."""

_MAX_DEPTH = 4
_MAX_DICTS = 1 << 14

_SAVE = "save model.state_dict() instead of the model"


@dataclasses.dataclass(frozen=True)
class _Place:
    """One set of weights: the dict under ``path``, and the names there that begin with ``prefix``.

    The prefix is counted without the parts of wrappers.
    """

    path: tuple[str, ...]
    prefix: str
    weights: Mapping[str, Any]

    @property
    def words(self) -> str:
        """What ``--weights`` calls it; empty for the checkpoint itself."""
        return "/".join((*self.path, *filter(None, [self.prefix.rstrip(".")])))

    @property
    def is_averaged(self) -> bool:
        """Whether its name says that it follows other weights."""
        return not _AVERAGED.isdisjoint(re.split(r"[^a-z0-9]+", self.words.lower()))

    @property
    def rank(self) -> tuple[bool, int]:
        """What is taken first of several; no order between equal ones."""
        last = self.prefix.rstrip(".").rpartition(".")[2] or (self.path[-1] if self.path else "")
        known = _OWNERS.index(last) if last in _OWNERS else len(_OWNERS)
        return self.is_averaged, -1 if not self.words else known

    def state(self, others: Sequence[str] = ()) -> StateDict:
        """Return the weights, under names without prefix and wrappers.

        Raises:
            CheckpointError: two names differ only in such parts.
        """
        result: dict[str, Any] = {}
        for key, name in _names(self.weights).items():
            if not name.startswith(self.prefix):
                continue
            name = name.removeprefix(self.prefix)
            if name in result:
                raise CheckpointError(f"{quoted(key)} stands twice, with and without 'module.'")
            result[name] = self.weights[key]
        return StateDict(result, others=others)


def find_state_dict(
    checkpoint: Mapping[str, Any], signatures: Sequence[Signature] = (), wanted: str | None = None
) -> StateDict:
    """Return the weights in ``checkpoint``, their names without the parts that wrappers add.

    Meaning: those that one of ``signatures`` fits, wherever in nested dicts they are and whatever
             stands before their names; of several, the trained before the averaged ones, and by
             their usual names.  Where nothing fits: under ``state_dict``; or the checkpoint
             itself; or the only dict of tensors.  ``wanted`` names one of several.
    Raises:  CheckpointError if there are none, if several are equally likely, or two names differ
             only in parts of wrappers.
    """
    dicts = list(_dicts_of_tensors(checkpoint, ()))
    places = [
        _Place(path, prefix, weights)
        for path, weights in dicts
        for prefix in _fitting_prefixes(weights, signatures)
    ]
    if not places:
        places = [_Place(path, _common_prefix(weights), weights) for path, weights in dicts]
        places = _by_usual_key(places)
    if wanted is not None:
        return _named(places, wanted).state()
    if not places:
        raise CheckpointError(_describe_lack(checkpoint))
    places.sort(key=lambda place: place.rank)
    first, *others = places
    if others and others[0].rank == first.rank:
        raise CheckpointError(
            f"holds tensors under {_listed(places)}; --weights NAME takes one of them"
        )
    return first.state([place.words or "the file itself" for place in others])


def _dicts_of_tensors(
    checkpoint: Any, path: tuple[str, ...], budget: list[int] | None = None
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    budget = [_MAX_DICTS] if budget is None else budget
    budget[0] -= 1
    if len(path) > _MAX_DEPTH or budget[0] < 0 or not isinstance(checkpoint, dict):
        return
    if any(isinstance(value, np.ndarray) for value in checkpoint.values()):
        yield path, checkpoint
    for key, value in checkpoint.items():
        yield from _dicts_of_tensors(value, (*path, key), budget)


def _names(weights: Mapping[str, Any]) -> dict[str, str]:
    return {key: ".".join(p for p in key.split(".") if p not in _WRAPPERS) for key in weights}


def _fitting_prefixes(weights: Mapping[str, Any], signatures: Sequence[Signature]) -> list[str]:
    """Return what stands before the names of a signature that the weights fit, each once."""
    by_name = {name: weights[key] for key, name in _names(weights).items()}
    state = StateDict(by_name)
    found: dict[str, None] = {}
    for signature in signatures:
        first = next(iter(signature))
        for name in by_name:
            prefix = name.removesuffix(first)
            if prefix == name or (prefix and not prefix.endswith(".")):
                continue
            if state.has_signature({prefix + key: shape for key, shape in signature.items()}):
                found[prefix] = None
    return list(found)


def _common_prefix(weights: Mapping[str, Any]) -> str:
    """Return the usual attributes that all names of tensors begin with."""
    names = [n for k, n in _names(weights).items() if isinstance(weights[k], np.ndarray)]
    names = [name for name in names if "." in name]
    prefix = ""
    while names:
        part, _, _ = names[0].removeprefix(prefix).partition(".")
        longer = f"{prefix}{part}."
        if part not in _OWNERS or not all(name.startswith(longer) for name in names):
            break
        prefix = longer
    return prefix


def _by_usual_key(places: list[_Place]) -> list[_Place]:
    for path in (("state_dict",), ()):
        if usual := [place for place in places if place.path == path]:
            return usual
    return places


def _named(places: Sequence[_Place], wanted: str) -> _Place:
    for place in places:
        if place.words == wanted:
            return place
    here = _listed(places) or "nothing"
    raise CheckpointError(f"holds no weights under {quoted(wanted)}, but under {here}")


def _listed(places: Sequence[_Place]) -> str:
    names = [quoted(place.words) if place.words else "no key" for place in places]
    return ", ".join([*names[:8], *(["..."] if len(names) > 8 else [])])


def _describe_lack(checkpoint: Mapping[str, Any]) -> str:
    """Say what is there instead of weights, and what to do."""
    for key, value in checkpoint.items():
        if isinstance(value, Inert) and key in (*_OWNERS, "ema", "ema_model"):
            return (
                f"{quoted(key)} is a whole object, {quoted(value.name)}, which nothing but its own "
                f"code can read; {_SAVE}"
            )
        if isinstance(value, list | tuple) and any(isinstance(v, np.ndarray) for v in value):
            return f"{quoted(key)} is a {type(value).__name__} of tensors without names; {_SAVE}"
    keys = ", ".join(quoted(key) for key in list(checkpoint)[:8]) or "nothing"
    return f"holds no 'state_dict' and no tensors, only {keys}; {_SAVE}"
