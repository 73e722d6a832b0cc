"""What bounds a server."""

from __future__ import annotations

import dataclasses

from bitinfer.backends import usable_cpus
from bitinfer.errors import UsageError
from bitinfer.vision import MAX_FILE_BYTES


@dataclasses.dataclass(frozen=True)
class Settings:
    """Bounds of one process of a server; times are in seconds.

    Attributes:
        threads: requests that are computed at once; 0 is as many as this process may use CPUs.
        queue: requests that may wait for a thread; those beyond are answered 503.
        deadline_s: from the head of a request to its answer; then it is answered 503.
        max_body_bytes: of one request.
        max_buffered_bytes: of the bodies of all requests together; those beyond are answered 503.
        max_batch: samples in one request.
        body_timeout_s: for a body to arrive.
        head_timeout_s: for the head of a request to arrive, from its first byte or the connection.
        idle_timeout_s: between two requests of a connection.
        write_timeout_s: during which a client may take nothing of its answer.
        max_connections: at once.
        max_head_bytes: request line and headers.
        linger_s: from SIGTERM on, as long as connections are still accepted; every answer then
            closes its connection.
        drain_s: after that, for the requests that are under way.
        access_log: whether each request leaves a line on stderr.
        page: whether the page is served at ``/``.
    """

    threads: int = 0
    queue: int = 64
    deadline_s: float = 10.0
    max_body_bytes: int = MAX_FILE_BYTES
    max_buffered_bytes: int = 4 * MAX_FILE_BYTES
    max_batch: int = 1024
    body_timeout_s: float = 20.0
    head_timeout_s: float = 10.0
    idle_timeout_s: float = 30.0
    write_timeout_s: float = 20.0
    max_connections: int = 512
    max_head_bytes: int = 32 << 10
    linger_s: float = 0.5
    drain_s: float = 30.0
    access_log: bool = True
    page: bool = True

    def __post_init__(self) -> None:
        least = {"threads": 0, "queue": 0, "linger_s": 0}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            bound = least.get(field.name, 1)
            if field.type == "int" and (not isinstance(value, int) or value < bound):
                raise UsageError(f"{field.name} is {value!r}, wanted an integer from {bound}")
            if field.type == "float" and not (0 <= value < float("inf")):
                raise UsageError(f"{field.name} is {value!r}, wanted seconds")
        if self.max_buffered_bytes < self.max_body_bytes:
            raise UsageError(
                f"max_buffered_bytes is {self.max_buffered_bytes}, less than the "
                f"{self.max_body_bytes} bytes that one body may have"
            )

    @property
    def pool_threads(self) -> int:
        """How many threads compute."""
        return self.threads or usable_cpus()
