"""A pool of processes.

    python examples/services/processes.py MODEL PICTURE...

A session is sent to a process as the path of its model, so each process loads the model once.  The
start method may be any: here it is spawn, where nothing is inherited.
"""

from __future__ import annotations

import multiprocessing
import sys

import bitinfer

session: bitinfer.Session


def begin(given: bitinfer.Session) -> None:
    """Keep the session of this process."""
    global session  # noqa: PLW0603 - what a process keeps between tasks
    session = given
    session.warmup(pixels=True)


def label(path: str) -> str:
    """Return the most probable class, or what is wrong with the picture."""
    try:
        return session.classify(path, 1)[0].label
    except bitinfer.ImageError as error:
        return f"error: {error}"


if __name__ == "__main__":
    model, *paths = sys.argv[1:]
    context = multiprocessing.get_context("spawn")
    with context.Pool(2, begin, (bitinfer.load(model),)) as pool:
        for path, found in zip(paths, pool.imap(label, paths, chunksize=8), strict=True):
            print(f"{path}\t{found}")
