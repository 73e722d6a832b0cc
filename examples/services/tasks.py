"""Tasks of asyncio.

    python examples/services/tasks.py MODEL PICTURE...

Calls run in threads, so that the event loop stays free.  The semaphore bounds how many are under
way: without one, whoever is faster at asking than this machine at answering would fill the memory.
"""

from __future__ import annotations

import asyncio
import sys

import bitinfer

AT_ONCE = 4


async def main(model: str, paths: list[str]) -> None:
    """Classify pictures, and print each as it is done, in their order."""
    session = await asyncio.to_thread(bitinfer.load, model)
    places = asyncio.Semaphore(AT_ONCE)

    async def label(path: str) -> str:
        async with places:
            try:
                found = await asyncio.to_thread(session.classify, path, 1)
            except bitinfer.ImageError as error:
                return f"error: {error}"
            return found[0].label

    tasks = [asyncio.create_task(label(path)) for path in paths]
    for path, task in zip(paths, tasks, strict=True):
        print(f"{path}\t{await task}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
