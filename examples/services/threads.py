"""A pool of threads over one session.

    python examples/services/threads.py MODEL PICTURE...

Many threads may use one session at once; each call has its own scratch memory, and none holds the
GIL while it computes.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import bitinfer


def main(model: str, paths: list[str]) -> None:
    """Classify pictures in their order."""
    session = bitinfer.load(model)

    def label(path: str) -> str:
        try:
            return session.classify(path, 1)[0].label
        except bitinfer.ImageError as error:
            return f"error: {error}"

    with ThreadPoolExecutor(4) as pool:
        for path, found in zip(paths, pool.map(label, paths), strict=True):
            print(f"{path}\t{found}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
