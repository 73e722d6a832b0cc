"""Accuracy against latency: networks of ours and int8 networks, in one interleaved run.

    python bench/frontier.py measure --data CIFAR10 --rivals DIR [--model FILE]... -o OUT.json
    python bench/frontier.py draw OUT.json... -o PICTURE.png

``measure`` takes the zoo's models for CIFAR-10 and the files given, as they are and with integer
ends, and every .tflite file under DIR by OpenVINO and, where it is installed, LiteRT.  Each
classifies the test pictures, and is timed with one picture, one thread and one core: the shortest
call of many rounds in turn.  ``--isa avx2`` or ``avx512`` keeps them from richer instruction sets
(AMX, with ``avx512``); LiteRT cannot be kept from them and is left out.  Nothing else should run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rig.probes import cpu_name

from bitinfer import modelfile
from bitinfer.files import write_atomically
from bitinfer.integer_ends import integer_ends
from bitinfer.session import Session
from bitinfer.zoo.shipped import SHIPPED

ISAS = {"native": None, "avx512": "AVX512_CORE_VNNI", "avx2": "AVX2"}
"""What oneDNN, within OpenVINO, is told in ONEDNN_MAX_CPU_ISA."""

CALLS = 20
"""Of each network in a round."""

Pixels = NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Point:
    """A network as it was measured; ``correct`` of ``total`` pictures, the shortest call in ms."""

    name: str
    engine: str
    isa: str
    cpu: str
    correct: int
    total: int
    milliseconds: float


@dataclasses.dataclass(frozen=True)
class Subject:
    """A network to be measured: ``run`` takes (1, 32, 32, 3) pixels and returns its logits."""

    name: str
    engine: str
    run: Callable[[Pixels], Any]


def ours(path: Path, isa: str) -> list[Subject]:
    """Return a model file as bitinfer runs it, with its ends as they are and in integers."""
    backend = "native:avx2" if isa == "avx2" else "native"
    model = modelfile.load(path)
    variants = {path.stem: model, f"{path.stem}, integer ends": integer_ends(model).model}
    return [
        Subject(name, "bitinfer", Session(variant, backend=backend, threads=1).run)
        for name, variant in variants.items()
    ]


def by_openvino(path: Path) -> Subject:
    """Return a .tflite file as OpenVINO runs it."""
    import openvino

    core = openvino.Core()
    options = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    model = core.read_model(path)
    model.reshape([1, 32, 32, 3])
    request = core.compile_model(model, "CPU", options).create_infer_request()
    tensor = request.get_input_tensor()

    def run(pixels: Pixels) -> Any:
        # Its input is the pixel less 128: the same bits but the highest.
        np.bitwise_xor(pixels, 128, out=tensor.data.view(np.uint8))
        request.infer()
        return request.get_output_tensor().data

    return Subject(path.stem, "openvino", run)


def by_litert(path: Path) -> Subject:
    """Return a .tflite file as LiteRT runs it."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    target = interpreter.get_output_details()[0]["index"]

    def run(pixels: Pixels) -> Any:
        interpreter.set_tensor(source, (pixels ^ 128).view(np.int8))
        interpreter.invoke()
        return interpreter.get_tensor(target)

    return Subject(path.stem, "litert", run)


def rivals(folder: Path, isa: str) -> list[Subject]:
    """Return every .tflite file in ``folder`` with every engine that is installed."""
    found = []
    engines = (by_openvino, by_litert) if isa == "native" else (by_openvino,)
    for path in sorted(folder.glob("*.tflite")):
        for make in engines:
            try:
                found.append(make(path))
            except ModuleNotFoundError as error:
                print(f"{path.name}: left out with {error.name}, which is not installed")
    return found


def correct(subject: Subject, images: Pixels, labels: Pixels) -> int:
    """Return how many pictures have their largest logit at their label, one by one."""
    return sum(
        int(np.argmax(subject.run(image[None])) == label)
        for image, label in zip(images, labels, strict=True)
    )


def shortest_calls(subjects: list[Subject], image: Pixels, rounds: int) -> list[float]:
    """Return the shortest call of each in milliseconds; in each round all of them take turns."""
    shortest = [float("inf")] * len(subjects)
    for _ in range(rounds):
        for number, subject in enumerate(subjects):
            for _ in range(CALLS):
                start = time.perf_counter()
                subject.run(image)
                shortest[number] = min(shortest[number], time.perf_counter() - start)
    return [1e3 * seconds for seconds in shortest]


def measure(arguments: argparse.Namespace) -> None:
    """Measure all networks and write them as JSON, and a line of each."""
    from bitinfer.train.pictures import read_cifar10

    cap = ISAS[arguments.isa]
    if cap is not None:
        os.environ["ONEDNN_MAX_CPU_ISA"] = cap
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    test = read_cifar10(arguments.data)[2]
    shipped = [m.path for m in SHIPPED.values() if m.data_set == "cifar10"]
    subjects = [s for path in [*shipped, *arguments.model] for s in ours(path, arguments.isa)]
    subjects += rivals(arguments.rivals, arguments.isa)
    images = np.ascontiguousarray(test.images)
    times = shortest_calls(subjects, images[:1], arguments.rounds)
    points = []
    for subject, milliseconds in zip(subjects, times, strict=True):
        right = correct(subject, images, test.labels)
        point = Point(
            subject.name,
            subject.engine,
            arguments.isa,
            cpu_name(),
            right,
            len(images),
            round(milliseconds, 4),
        )
        points.append(dataclasses.asdict(point))
        share = 100 * right / len(images)
        print(f"{point.name:36} {point.engine:9} {milliseconds:.3f} ms  {share:.1f} %", flush=True)
    write_atomically(arguments.output, (json.dumps(points, indent=1) + "\n").encode())


def draw(arguments: argparse.Namespace) -> None:
    """Draw accuracy against latency, one chart for each instruction set."""
    from matplotlib import ticker

    from bitinfer.train.charts import BLUE, ORANGE, figure, to_png

    points = [Point(**p) for path in arguments.file for p in json.loads(path.read_text())]
    isas = list(dict.fromkeys(p.isa for p in points))
    chart, axes = figure(1, len(isas), width=5.0)
    for axis, isa in zip(axes, isas, strict=True):
        of_isa = [p for p in points if p.isa == isa]
        # Of an int8 network only its quickest engine counts.
        names = dict.fromkeys(p.name for p in of_isa)
        quickest = [
            min((p for p in of_isa if p.name == n), key=lambda p: p.milliseconds) for n in names
        ]
        ours = [p.name for p in quickest if p.engine == "bitinfer" and "integer" not in p.name]
        for point in quickest:
            share = point.correct / point.total
            error = 1.96 * (share * (1 - share) / point.total) ** 0.5
            colour = BLUE if point.engine == "bitinfer" else ORANGE
            axis.errorbar(
                point.milliseconds, 100 * share, yerr=100 * error, fmt="o", color=colour, capsize=3
            )
            # Ours with either end lie beside each other, and have one name; neighbours' go apart.
            if point.engine == "bitinfer" and point.name not in ours:
                continue
            label = f" {point.name} \n {point.engine}, {point.milliseconds:.3f} ms "
            is_ours = point.name in ours
            side = "right" if is_ours and ours.index(point.name) % 2 else "left"
            up = "bottom" if is_ours else "top"
            axis.annotate(label, (point.milliseconds, 100 * share), fontsize=8, va=up, ha=side)
        axis.set_xscale("log")
        times = [p.milliseconds for p in quickest]
        axis.set_xlim(0.1 * min(times), 6 * max(times))
        axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        axis.xaxis.set_minor_locator(ticker.NullLocator())
        axis.set_xlabel("one picture, one thread, ms")
        axis.set_ylabel("CIFAR-10, % right (95 % interval)")
        axis.set_title(f"{of_isa[0].cpu}: {isa}", fontsize=9)
    write_atomically(arguments.output, to_png(chart))


def main() -> None:
    """Measure or draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("--data", type=Path, required=True, metavar="DIR")
    measuring.add_argument("--rivals", type=Path, required=True, metavar="DIR")
    measuring.add_argument("--model", type=Path, action="append", default=[], metavar="FILE")
    measuring.add_argument("--isa", choices=ISAS, default="native")
    measuring.add_argument("--rounds", type=int, default=150, metavar="N")
    measuring.set_defaults(do=measure)
    drawing = commands.add_parser("draw")
    drawing.add_argument("file", type=Path, nargs="+")
    drawing.set_defaults(do=draw)
    for command in (measuring, drawing):
        command.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    arguments = parser.parse_args()
    arguments.do(arguments)


if __name__ == "__main__":
    main()
