"""Counters that all workers share, as Prometheus reads them.

Every series is known before the first request: names and labels come from this file and from the
command line, never from a client, so their number is fixed.  They lie in shared memory, a row of
float64 for each worker, which its event loop alone writes; whoever is asked adds the rows up.

The format is https://prometheus.io/docs/instrumenting/exposition_formats/.
"""

from __future__ import annotations

import bisect
import mmap
from collections.abc import Iterable, Iterator, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

ENDPOINTS = ("infer", "classify", "metadata", "health", "metrics", "page", "other")
STATUSES = (200, 304, 400, 404, 405, 408, 413, 415, 422, 499, 500, 503)
"""499 stands for a client that has gone."""
BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

_TIMED = ("infer", "classify")
_DOUBLE = 8


class _Layout:
    """Where each number lies in a row."""

    def __init__(self) -> None:
        self.size = 0

    def take(self, count: int = 1) -> int:
        start, self.size = self.size, self.size + count
        return start


class Metrics:
    """What a server counts; the methods that count are called by event loops.

    ``models`` are pairs of name and version.
    """

    def __init__(self, models: Sequence[tuple[str, str]], workers: int = 1) -> None:
        layout = _Layout()
        self._requests = {
            (endpoint, status): layout.take() for endpoint in ENDPOINTS for status in STATUSES
        }
        width = len(BUCKETS_S) + 2  # one bucket without end, and the sum
        self._seconds = {endpoint: layout.take(width) for endpoint in _TIMED}
        self._compute = {model: layout.take(width) for model in models}
        self._samples = {model: layout.take() for model in models}
        self._gauges = {name: layout.take() for name in ("connections", "in_flight", "ready")}
        self._size, self._workers = layout.size, workers
        memory = mmap.mmap(-1, max(1, layout.size * workers) * _DOUBLE)
        self._cells = memoryview(memory).cast("d")
        self._start = 0

    def use_row(self, worker: int) -> None:
        """Count for a worker: a number from 0.  What one before it did not finish is forgotten."""
        self._start = worker * self._size
        for cell in self._gauges.values():
            self._cells[self._start + cell] = 0.0

    def count_request(self, endpoint: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        cell = self._requests.get((endpoint, status))
        if cell is None:
            cell = self._requests[endpoint, 400 if status < 500 else 500]
        self._cells[self._start + cell] += 1.0
        if endpoint in self._seconds:
            self._observe(self._seconds[endpoint], seconds)

    def count_inference(self, model: tuple[str, str], samples: int, seconds: float) -> None:
        """Count what a thread has computed."""
        self._cells[self._start + self._samples[model]] += samples
        self._observe(self._compute[model], seconds)

    def set_gauge(self, name: str, value: float) -> None:
        """Set ``connections``, ``in_flight`` or ``ready`` of this worker."""
        self._cells[self._start + self._gauges[name]] = value

    def _observe(self, start: int, value: float) -> None:
        cells, start = self._cells, self._start + start
        cells[start + bisect.bisect_left(BUCKETS_S, value)] += 1.0
        cells[start + len(BUCKETS_S) + 1] += value

    def _total(self, cell: int) -> float:
        return sum(self._cells[cell + row * self._size] for row in range(self._workers))

    def text(self) -> str:
        """Return all series of all workers."""
        return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        yield from _head("bitinfer_requests_total", "counter", "Requests that were answered.")
        for (endpoint, status), cell in self._requests.items():
            labels = f'endpoint="{endpoint}",status="{status}"'
            yield f"bitinfer_requests_total{{{labels}}} {_number(self._total(cell))}"
        yield from self._histograms(
            "bitinfer_request_seconds",
            "Seconds from the head of a request to the end of its answer.",
            ((f'endpoint="{endpoint}"', cell) for endpoint, cell in self._seconds.items()),
        )
        yield from self._histograms(
            "bitinfer_compute_seconds",
            "Seconds that a thread spent on a request: parsing, inference, encoding.",
            ((_model(model), cell) for model, cell in self._compute.items()),
        )
        yield from _head("bitinfer_samples_total", "counter", "Samples that were inferred.")
        for model, cell in self._samples.items():
            yield f"bitinfer_samples_total{{{_model(model)}}} {_number(self._total(cell))}"
        for name, text in (
            ("connections", "Open connections."),
            ("in_flight", "Requests that compute or wait for a thread."),
            ("ready", "Workers that take requests."),
        ):
            yield from _head(f"bitinfer_{name}", "gauge", text)
            yield f"bitinfer_{name} {_number(self._total(self._gauges[name]))}"
        yield from _head("bitinfer_workers", "gauge", "Worker processes that were asked for.")
        yield f"bitinfer_workers {self._workers}"

    def _histograms(self, name: str, text: str, series: Iterable[tuple[str, int]]) -> Iterator[str]:
        yield from _head(name, "histogram", text)
        for labels, start in series:
            count = 0.0
            for i, bound in enumerate((*map(str, BUCKETS_S), "+Inf")):
                count += self._total(start + i)
                yield f'{name}_bucket{{{labels},le="{bound}"}} {_number(count)}'
            yield f"{name}_sum{{{labels}}} {self._total(start + len(BUCKETS_S) + 1)!r}"
            yield f"{name}_count{{{labels}}} {_number(count)}"


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"


def _model(model: tuple[str, str]) -> str:
    return f'model="{model[0]}",version="{model[1]}"'


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)
