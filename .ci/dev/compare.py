"""``./dev compare BASE HEAD``: whether a change made bitinfer slower.

Both commits are built in temporary folders.  Each is driven by its own code in a process of its own
(bench/compare/worker.py); the samples are taken in turn on one core, and only those count before
and after which the core was there for us alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import library
from running import ROOT

BENCH = ROOT / "bench"
FLOOR = 0.97
"""HEAD is slower where base time / head time is below this in each of REPEATS measurements."""
REPEATS = 3
LOADS = 6
SAMPLE_S = 1e-3
TREE = "."
"""In place of a commit: the files of the checkout as they are."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command ``compare``."""
    parser = commands.add_parser("compare", help="measure two commits, interleaved")
    parser.add_argument("base", metavar="BASE", help="a commit")
    parser.add_argument("head", metavar="HEAD", help=f"a commit, or {TREE} for the files here")
    parser.add_argument("-k", dest="words", default="", help="only cases with this in their name")
    parser.add_argument("--load", action="store_true", help="from the file to the first result")
    parser.add_argument("--backend", default="native", help="as of `bitinfer run` (native)")
    parser.add_argument("--rounds", type=int, default=40, help="samples of each side (40)")
    parser.add_argument("--budget", type=float, default=10.0, help="seconds a case, about (10)")
    parser.set_defaults(run=compare, passes_on=False)


class Side:
    """One build and the process that runs it."""

    def __init__(self, tree: Path) -> None:
        path = os.pathsep.join([str(tree / "src"), str(BENCH)])
        self._process = subprocess.Popen(
            [sys.executable, str(BENCH / "compare" / "worker.py")],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **question: Any) -> dict[str, Any]:
        """Send a question and return the answer.

        Raises:
            SystemExit: the process has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"./dev compare: a build ended at {question}")
        return dict(json.loads(line))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


@dataclasses.dataclass
class Ratio:
    """How fast HEAD is, as a multiple of BASE, by the shortest and by the median time."""

    minimum: float
    median: float
    text: str

    @property
    def is_slow(self) -> bool:
        """Whether both say that HEAD is slower: noise seldom strikes both."""
        return max(self.minimum, self.median) < FLOOR


def compare(args: argparse.Namespace) -> int:
    """Build both commits, measure all cases, and return 1 if one is slower."""
    sys.path[:0] = [str(BENCH), str(ROOT / "src"), str(BENCH / "compare")]
    import cases

    names = list(cases.LOADED) if args.load else [*cases.layer_names(), *cases.NETWORKS]
    names = [name for name in names if args.words in name]
    if not names:
        raise SystemExit(f"./dev compare: no case has {args.words!r} in its name")
    with tempfile.TemporaryDirectory(prefix="bitinfer-compare-") as folder:
        trees = [Path(folder, name) for name in ("base", "head")]
        for tree, commit in zip(trees, (args.base, args.head), strict=True):
            export(commit, tree)
            if library.build(tree):
                raise SystemExit(f"./dev compare: {commit} cannot be built")
        command = [sys.executable, str(BENCH / "compare" / "cases.py"), folder, *names]
        path = os.pathsep.join([str(trees[0] / "src"), str(BENCH)])
        subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=True)
        sides = (Side(trees[0]), Side(trees[1]))
        try:
            return judge(sides, [Path(folder, f"{name}.bin") for name in names], args)
        finally:
            for side in sides:
                side.close()


def export(commit: str, tree: Path) -> None:
    """Copy the files of a commit, or of the checkout as it is, into a new folder.

    Raises:
        SystemExit: there is no such commit.
    """
    tree.mkdir()
    command = ["git", "archive", commit]
    if commit == TREE:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout.split(b"\0")
        files = [name.decode() for name in listed if name and (ROOT / name.decode()).exists()]
        command = ["tar", "-c", *files]
    made = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=False)
    if made.returncode:
        raise SystemExit(f"./dev compare: there is no commit {commit}")
    subprocess.run(["tar", "-x", "-C", str(tree)], input=made.stdout, check=True)


def judge(sides: tuple[Side, Side], files: list[Path], args: argparse.Namespace) -> int:
    """Measure case by case, those that look slower again; return 1 if one stays so."""
    from rig import probes

    core = probes.make()
    print(f"{probes.cpu_name()}; probes in {core.kind}; load {' '.join(running())}")
    print("base time / head time: above 1, HEAD is faster\n")
    print(f"{'case':<12} {'by minimum':>10} {'by median':>10}")
    failed = []
    for file in files:
        attempts = 0
        while attempts < REPEATS:
            attempts += 1
            if not args.load:
                cpu = probes.pin_to_quietest(core)
                for side in sides if cpu is not None else ():
                    side.ask(cpu=cpu)
            ratio = measure(sides, file, probes.peak(core), args)
            mark = f"  slower, {attempts} of {REPEATS}" if ratio.is_slow else ""
            numbers = f"{ratio.minimum:>10.3f} {ratio.median:>10.3f}"
            print(f"{file.stem:<12} {numbers}  {ratio.text}{mark}", flush=True)
            if not ratio.is_slow:
                break
        else:
            failed.append(file.stem)
    print(f"\nafterwards: load {' '.join(running())}")
    if failed:
        print(f"HEAD is slower, below {FLOOR} in each of {REPEATS}: {', '.join(failed)}")
    return 1 if failed else 0


def measure(sides: tuple[Side, Side], file: Path, peak: float, args: argparse.Namespace) -> Ratio:
    """Measure one case once."""
    if args.load:
        pairs = [*_in_turn(sides, LOADS, first=str(file), backend=args.backend)]
        times = [[pair[side]["seconds"] for pair in pairs] for side in (0, 1)]
        return _ratio(min(times[0]), min(times[1]), *map(_median, times), "")
    from bitinfer.report.samples import Sample, levels, summarise

    opened = [_checked(side.ask(open=str(file), backend=args.backend)) for side in sides]
    calls = max(1, math.ceil(SAMPLE_S / min(answer["seconds"] for answer in opened)))
    samples: tuple[list[Any], list[Any]] = ([], [])
    end = time.monotonic() + args.budget
    for answers in _in_turn(sides, 100 * args.rounds, sample=calls):
        for answer, mine in zip(answers, samples, strict=True):
            ghz = answer["ghz"] and tuple(answer["ghz"])
            mine.append(Sample(**{**answer, "ghz": ghz, "vector": tuple(answer["vector"])}))
        found = levels(samples, peak)
        clean = min(
            sum(sample.is_clean(level) for sample in mine)
            for mine, level in zip(samples, found, strict=True)
        )
        late = time.monotonic() > end
        if (len(samples[0]) >= args.rounds and clean >= args.rounds // 2) or late:
            break
    base, head = (
        summarise(mine, 0, peak, level)
        for mine, level in zip(samples, levels(samples, peak), strict=True)
    )
    text = f"{opened[1]['backend']}, clean {base.clean}/{base.count} and {head.clean}/{head.count}"
    if head.ghz is not None:
        text += f", {head.ghz:.2f} GHz"
    if not (base.is_claimable and head.is_claimable):
        text += ", BUSY: too few clean samples"
    if opened[0]["result"] != opened[1]["result"]:
        text += ", other results"
    return _ratio(base.minimum_s, head.minimum_s, base.median_s, head.median_s, f" ({text})")


def _ratio(base: float, head: float, base_median: float, head_median: float, text: str) -> Ratio:
    times = f"{1e3 * base:.3f} -> {1e3 * head:.3f} ms"
    return Ratio(base / head, base_median / head_median, times + text)


def _median(times: list[float]) -> float:
    return sorted(times)[len(times) // 2]


def _in_turn(
    sides: tuple[Side, Side], rounds: int, **question: Any
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Ask both sides again and again, the first of them drawn anew each time."""
    draw = random.Random(0)
    for _ in range(rounds):
        base_first = draw.random() < 0.5
        asked = sides if base_first else sides[::-1]
        answers = [_checked(side.ask(**question)) for side in asked]
        yield (answers[0], answers[1]) if base_first else (answers[1], answers[0])


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    if "error" in answer:
        raise SystemExit(f"./dev compare: {answer['error']}")
    return answer


def running() -> list[str]:
    """Return the load averages and the names of other programs that run right now."""
    names = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, _, rest = status.read_text().partition(" (")
        except OSError:  # it has ended since
            continue
        name, _, fields = rest.rpartition(") ")
        if fields.startswith("R") and str(os.getpid()) not in (pid, fields.split()[1]):
            names.append(name)
    return [*(f"{load:.2f}" for load in os.getloadavg()), *sorted(names)]
