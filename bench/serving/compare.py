"""Requests per second of bitinfer serve, FastAPI with ONNX Runtime, and MLServer, in turns.

    python bench/serving/compare.py [--seconds S] [--rounds N] [--mlserver PYTHON]

All three get the same request of the Open Inference Protocol, a JSON tensor for LeNet-5; the
others run its float twin on ONNX Runtime.  MLServer wants another starlette: PYTHON is an
interpreter of an environment with mlserver and onnxruntime.  The client has the same cores as the
servers.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
MODEL = ROOT / "examples" / "lenet5.bin"
sys.path[:0] = [str(ROOT / "tests" / "serve"), str(ROOT / "bench")]

from rig.networks import float_twin  # noqa: E402
from serve_load import infer_request, keep_busy  # noqa: E402

from bitinfer import modelfile  # noqa: E402


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def running(command: list[str], port: int, environment: dict[str, str]) -> Iterator[int]:
    """Run a server until the block ends, which gets its process."""
    popen = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if popen.poll() is not None:
                    raise SystemExit(f"{command} ended with {popen.returncode}") from None
                time.sleep(0.1)
        yield popen.pid
    finally:
        popen.terminate()
        popen.wait(30)


def cpu_s(process: int) -> float:
    """Return the seconds of CPU that a process and its children have used."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_s(int(child)) for child in children)


def mlserver_folder(folder: Path, port: int) -> Path:
    """Write what MLServer wants to find."""
    (folder / "settings.json").write_text(
        json.dumps(
            {
                "host": "127.0.0.1",
                "http_port": port,
                "grpc_port": free_port(),
                "metrics_port": free_port(),
                "parallel_workers": 0,
                "debug": False,
            }
        )
    )
    settings = {"name": "lenet5", "implementation": "mlserver_onnxruntime.LeNet"}
    (folder / "model-settings.json").write_text(json.dumps(settings))
    (folder / "mlserver_onnxruntime.py").write_bytes(
        (HERE / "mlserver_onnxruntime.py").read_bytes()
    )
    return folder


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mlserver", metavar="PYTHON")
    args = parser.parse_args()
    request = infer_request("lenet5", np.zeros((1, 28, 28, 1), np.float32))
    servers: dict[str, tuple[int, int]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        twin = folder / "lenet5.onnx"
        twin.write_bytes(float_twin(modelfile.load(MODEL)).model)
        environment = {"TWIN": str(twin)}

        def start(name: str, command: list[str], port: int) -> None:
            process = stack.enter_context(running(command, port, environment))
            servers[name] = (port, process)

        for workers in (1, 2):
            port = free_port()
            options = [f"--port={port}", f"--workers={workers}", "--threads=1", "-q"]
            command = [sys.executable, "-m", "bitinfer", "serve", *options, str(MODEL)]
            start(f"bitinfer serve, {workers} workers", command, port)
        port = free_port()
        command = [sys.executable, "-m", "uvicorn", f"--port={port}", "--no-access-log"]
        command += [f"--app-dir={HERE}", "fastapi_onnxruntime:app"]
        start("FastAPI and ONNX Runtime", command, port)
        if args.mlserver:
            port = free_port()
            command = [str(Path(args.mlserver).with_name("mlserver")), "start"]
            start("MLServer", [*command, str(mlserver_folder(folder, port))], port)
        print(f"{os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.1f} at the start")
        figures: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for _ in range(args.rounds):
            for name, (port, process) in servers.items():
                for clients in (1, 16):
                    keep_busy(port, request, clients=clients, seconds=0.5)
                    before = cpu_s(process)
                    outcome = keep_busy(port, request, clients=clients, seconds=args.seconds)
                    used = (cpu_s(process) - before) / len(outcome.seconds)
                    if set(outcome.statuses) != {200}:
                        raise SystemExit(f"{name}: {outcome.describe()}")
                    rate = len(outcome.seconds) / outcome.took_s
                    figures.setdefault((name, clients), []).append((rate, used))
                    print(f"{name}; {clients} clients: {outcome.describe()}", flush=True)
        print(f"load average {os.getloadavg()[0]:.1f} at the end; medians of {args.rounds} rounds:")
        for (name, clients), values in figures.items():
            rate, used = map(statistics.median, zip(*values, strict=True))
            print(
                f"{name}; {clients} clients: {rate:.0f} requests/s, "
                f"{used * 1e6:.0f} us of CPU for each"
            )


if __name__ == "__main__":
    main()
