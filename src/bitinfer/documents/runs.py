"""Answers on what runs: predictions, accuracy, times, and what there is to run on."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, UnsetType

from bitinfer.backends import Status
from bitinfer.doctor import Finding
from bitinfer.documents import (
    Answer,
    Count,
    Macs,
    Milliseconds,
    ModelFile,
    Part,
    Share,
)
from bitinfer.profiling import StepTime
from bitinfer.session import Prediction

# --- run -----------------------------------------------------------------------------------------


class StageTimes(Part, frozen=True):
    """Milliseconds of the stages of one picture."""

    decode: Milliseconds
    preprocess: Milliseconds
    inference: Milliseconds


class Failure(Part, frozen=True):
    """Why an input has no predictions.

    Attributes:
        type: name of the class in ``bitinfer``, such as ``ImageError``.
        message: one line, as it is printed on stderr.
    """

    type: str
    message: str


class RunResult(Part, frozen=True):
    """One input: ``predictions``, best first, and ``ms``; or ``error``.

    ``annotated`` is the file that ``--annotate`` has written of it, absent if it could not be.
    """

    input: str
    predictions: tuple[Prediction, ...] | UnsetType = UNSET
    ms: StageTimes | UnsetType = UNSET
    annotated: str | UnsetType = UNSET
    error: Failure | UnsetType = UNSET


class Run(Answer, frozen=True):
    """What ``bitinfer run --json`` prints; ``--jsonl`` prints its results, each on a line.

    Attributes:
        backend: backend and instruction set.
        passed_over: files in the given folders that are no pictures, if there are any.
    """

    model: ModelFile
    backend: str
    results: tuple[RunResult, ...]
    passed_over: tuple[str, ...] | UnsetType = UNSET


# --- eval ----------------------------------------------------------------------------------------


class EvaluationData(Part, frozen=True):
    """Where the labelled pictures are from.

    Attributes:
        path: the file or folder that was read, within what was named.
        classes: how names of folders became classes: they are the model's labels, numbers of the
            classes from 0 or from 1, or in the order of the classes when sorted as texts.  Absent
            where the labels are numbers in a file.
        passed_over: files in the folders that are no pictures; absent as ``classes`` is.
    """

    path: str
    kind: Literal["idx", "npz", "cifar", "folder"]
    classes: Literal["labels", "numbers", "numbers from 1", "order"] | UnsetType = UNSET
    passed_over: tuple[str, ...] | UnsetType = UNSET


class Eval(Answer, frozen=True):
    """What ``bitinfer eval --json`` prints.

    Attributes:
        top1, top5: share of the pictures whose class is the most probable, or one of five.
        top1_interval: its 95 % Wilson interval, low and high.
        correct, correct_top5: the pictures that top1 and top5 count.
        total: pictures that were classified.
        failed: pictures that cannot be read, which count nowhere else.
        ms_per_image: of inference alone.
    """

    model: ModelFile
    backend: str
    data: EvaluationData
    top1: Share
    top1_interval: tuple[Share, Share]
    top5: Share
    correct: Count
    correct_top5: Count
    total: Count
    failed: Count
    ms_per_image: Milliseconds


# --- bench, profile ------------------------------------------------------------------------------


class Measured(Answer, frozen=True):
    """What is measured: the model, the backend and instruction set, and the input, in words."""

    model: ModelFile
    backend: str
    input: str
    macs: Macs


class BenchResult(Part, frozen=True):
    """Calls of one batch size with one number of threads; the rates are by the median.

    Attributes:
        rounds: calls that were measured.
        min_ms, median_ms, p90_ms, p99_ms: of a call.
        samples_per_s, gmac_per_s: samples and 10^9 multiply-accumulates in a second.
    """

    batch: Count
    threads: Count
    rounds: Count
    min_ms: Milliseconds
    median_ms: Milliseconds
    p90_ms: Milliseconds
    p99_ms: Milliseconds
    samples_per_s: float
    gmac_per_s: float


class Bench(Measured, frozen=True):
    """What ``bitinfer bench --json`` prints."""

    load_ms: Milliseconds
    first_inference_ms: Milliseconds
    results: tuple[BenchResult, ...]


class Profile(Measured, frozen=True):
    """What ``bitinfer profile --json`` prints.

    Attributes:
        threads, rounds: of a call, and calls that were measured.
        clock_hz: cycles of the core in a second, measured; null where that is not known.
        ms: sum of the medians of all steps.
        steps: in order of execution.
    """

    threads: Count
    rounds: Count
    clock_hz: float | None
    ms: Milliseconds
    share_outside_convolutions: Share
    steps: tuple[StepTime, ...]


# --- info ----------------------------------------------------------------------------------------


class Cpu(Part, frozen=True):
    """The CPU, and whether it has each instruction set that kernels are made for."""

    model: str
    features: dict[str, bool]


class Info(Answer, frozen=True):
    """What ``bitinfer info --json`` prints.

    Attributes:
        version, python, numpy: versions; ``platform`` is system and machine.
        backends: in the order in which ``auto`` tries them.
        backend: the one that is chosen, or why there is none.
        kernels: names of the kernels of each operation, best first.
    """

    version: str
    python: str
    numpy: str
    platform: str
    cpu: Cpu
    backends: tuple[Status, ...]
    backend: str
    kernels: dict[str, tuple[str, ...]]


# --- doctor --------------------------------------------------------------------------------------


class Doctor(Answer, frozen=True):
    """What ``bitinfer doctor --json`` prints.

    Attributes:
        findings: faults, which make bitinfer slow or wrong now, and notes, which do no harm yet.
        clock_hz, cpu_share: as measured: cycles a second, and the share of a core that this
            process got; null without the native backend.
        usable_cpus: what ``threads=0`` means here.
        info: what ``bitinfer info --json`` prints.
    """

    findings: tuple[Finding, ...]
    clock_hz: float | None
    cpu_share: Share | None
    usable_cpus: Count
    info: Info
