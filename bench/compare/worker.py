"""One build, driven from outside: a JSON object a line comes in, one goes out.

    {"open": FILE, "backend": NAME}     load a model and run it; answers what run() takes
    {"sample": CALLS}                   time CALLS calls of run() between two looks at the core
    {"first": FILE, "backend": NAME}    time from the file to the first result
    {"cpu": NUMBER}                     move to this CPU

Only what every version has is used: bitinfer.load, Session.inputs, Session.run.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from rig import probes  # before NumPy

import bitinfer

Answer = dict[str, Any]


class Worker:
    """The session that is measured, and the core that it runs on."""

    def __init__(self) -> None:
        self.core = probes.make()
        self.session: Any = None
        self.x: Any = None
        self.out: Any = None

    def open(self, file: str, backend: str) -> Answer:
        """Load a model, run it, and say how long a call takes and what came out."""
        self.session = bitinfer.load(file, backend)
        self.x = picture(self.session)
        self.out = self.session.run(self.x)
        seconds = min(self._time(1)[0] for _ in range(5))
        digest = hashlib.sha256(self.out.tobytes()).hexdigest()
        return {"seconds": seconds, "result": digest, "backend": self.session.backend}

    def sample(self, calls: int) -> Answer:
        """Time some calls; the fields are those of bitinfer.report.samples.Sample."""
        self._time(1)  # brings the data back to the caches that the other build filled
        clock, vector = self.core.clock_ghz(), self.core.vector_rate()
        seconds, cpu = self._time(calls)
        vector_after, clock_after = self.core.vector_rate(), self.core.clock_ghz()
        ghz = None
        if clock is not None and clock_after is not None:
            ghz = (clock, clock_after)
            vector, vector_after = vector / clock, vector_after / clock_after
        times = {"seconds": seconds / calls, "cpu_seconds": cpu / calls}
        return {**times, "ghz": ghz, "vector": (vector, vector_after)}

    def first(self, file: str, backend: str) -> Answer:
        """Time loading and the first result; the file is read once before."""
        Path(file).read_bytes()
        start = time.perf_counter()
        session = bitinfer.load(file, backend)
        session.run(picture(session))
        return {"seconds": time.perf_counter() - start}

    def _time(self, calls: int) -> tuple[float, float]:
        cpu = time.process_time()
        start = time.perf_counter()
        for _ in range(calls):
            self.session.run(self.x, out=self.out)
        return time.perf_counter() - start, time.process_time() - cpu


def picture(session: Any) -> Any:
    """Return a made-up input of a session, always the same."""
    import numpy as np

    shape = session.inputs[0].shape
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def main() -> None:
    """Answer line by line until there are no more."""
    answers, sys.stdout = sys.stdout, sys.stderr
    worker = Worker()
    for line in sys.stdin:
        question = json.loads(line)
        try:
            match question:
                case {"open": file, "backend": backend}:
                    answer = worker.open(file, backend)
                case {"sample": calls}:
                    answer = worker.sample(calls)
                case {"first": file, "backend": backend}:
                    answer = worker.first(file, backend)
                case {"cpu": cpu}:
                    probes.move_to([cpu])
                    answer = {}
        except Exception as error:  # the other side must hear of it
            answer = {"error": f"{type(error).__name__}: {error}".partition("\n")[0]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
