"""Prints the figures of docs/serving.md: ``python tests/serve/serve_figures.py [SECONDS]``.

The client runs on the same cores as the server.  Nothing else should run meanwhile; the load
average is printed so that one sees whether something did.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "src")]

from serve_load import infer_request, keep_busy, post  # noqa: E402
from serve_processes import Process  # noqa: E402


def cpu_s(process: int) -> float:
    """Return the seconds of CPU that a process and its children have used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(seconds: float) -> None:
    """Measure and print, a line for each case."""
    x = np.random.default_rng(0).standard_normal((1, 28, 28, 1)).astype(np.float32)
    picture = (ROOT / "examples" / "digit_7.png").read_bytes()
    requests = {
        "infer, JSON": infer_request("lenet5", x),
        "infer, bytes": infer_request("lenet5", x, as_bytes=True),
        "classify, PNG of 112 x 112": post("/v2/models/lenet5/classify", picture),
    }
    model = ROOT / "examples" / "lenet5.bin"
    print(f"LeNet-5, {os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.1f} at the start")
    for arguments in ((), ("--workers=2", "--threads=1")):
        server = Process("-q", *arguments, model)
        processes = [server.popen.pid, *server.children()]
        for name, request in requests.items():
            for clients in (1, 16):
                keep_busy(server.port, request, clients=clients, seconds=0.5)
                before = sum(map(cpu_s, processes))
                outcome = keep_busy(server.port, request, clients=clients, seconds=seconds)
                used = (sum(map(cpu_s, processes)) - before) / len(outcome.seconds)
                how = " ".join(arguments) or "one process"
                print(
                    f"{how}; {name}; {clients} clients: {outcome.describe()}; "
                    f"{used * 1e6:.0f} us of the server's CPU for each"
                )
        server.end()
    print(f"load average {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]) if sys.argv[1:] else 5.0)
