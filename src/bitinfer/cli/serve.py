"""``bitinfer serve``: answers requests over HTTP, and shows a page."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from typing import TYPE_CHECKING, Any

from bitinfer.cli import _common
from bitinfer.cli._terminal import busy, note, printable

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from bitinfer.serve.models import Models
    from bitinfer.serve.settings import Settings

_DEFAULT_PORT = 8000
_MAX_MODULE = 256 << 20
_EPILOG = """models:
  FILE, NAME=FILE or NAME:VERSION=FILE; a model is called as its file without the suffix, and its
  version is 1, unless it is said otherwise

The port opens when every model has passed a self-test. SIGTERM or Ctrl-C ends the server: requests
that are under way are answered, and the exit code is 0.
"""


def add_parser(subparsers: Any) -> None:
    """Register the command and its arguments."""
    parser = subparsers.add_parser(
        "serve",
        help="answer requests over HTTP, and show a page",
        description="Serve models with the Open Inference Protocol V2, and a page at /. Needs the "
        "extra 'serve'.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "models", metavar="MODEL", nargs="+", help="model file, with or without a name"
    )
    add = functools.partial(parser.add_argument, metavar="N")
    add(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on (default: 127.0.0.1, which only this machine reaches; 0.0.0.0: "
        "every network)",
    )
    add(
        "--port",
        type=_port,
        default=_DEFAULT_PORT,
        help=f"port (default: {_DEFAULT_PORT}; 0: any that is free)",
    )
    add("--workers", type=_common.positive, default=1, help="processes (default: 1)")
    add(
        "--threads",
        type=_common.positive,
        help="requests that a process computes at once (default: its CPUs, shared by the workers)",
    )
    add(
        "--queue",
        type=_common.positive,
        default=64,
        help="requests of a process that may wait for a thread (default: 64); others are answered "
        "503",
    )
    add(
        "--deadline",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="time for one answer (default: 10); then it is 503",
    )
    add(
        "--max-body",
        type=_common.positive,
        default=64,
        metavar="MIB",
        help="largest body of a request (default: 64)",
    )
    add(
        "--max-batch",
        type=_common.positive,
        default=1024,
        help="samples of one request (default: 1024)",
    )
    add(
        "--max-connections",
        type=_common.positive,
        default=512,
        help="connections of a process (default: 512)",
    )
    add(
        "--linger",
        type=_seconds,
        default=0.5,
        metavar="SECONDS",
        help="from the signal to end on, how long connections are still accepted (default: 0.5)",
    )
    add(
        "--drain",
        type=_seconds,
        default=30.0,
        metavar="SECONDS",
        help="after that, how long requests under way may take (default: 30)",
    )
    parser.add_argument(
        "--wasm",
        metavar="NAME=FILE",
        action="append",
        default=[],
        help="a WebAssembly build of a model's export (docs/embed-in-c.md), which the page runs in "
        "the browser, too",
    )
    parser.add_argument("--no-page", action="store_true", help="serve no page at /")
    parser.add_argument(
        "--open", action="store_true", help="open the page in a browser; for one person"
    )
    _common.add_backend(parser)
    _common.add_quiet(parser)


def run(args: argparse.Namespace) -> int:
    """Load, test, serve until told to end."""
    from bitinfer.errors import UsageError
    from bitinfer.serve import Service, load_models
    from bitinfer.serve.service import require

    if args.open and args.no_page:
        raise UsageError("--open shows the page, which --no-page leaves out")
    if args.wasm and args.no_page:
        raise UsageError("--wasm is for the page, which --no-page leaves out")
    for package in ("starlette", "uvicorn", "httptools"):
        require(package)
    from bitinfer.serve import server

    settings = _settings(args)
    try:
        sock = server.bind(args.host, args.port)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot listen on {args.host} port {args.port}: {reason}") from error
    with sock:
        with busy("loading and testing models", quiet=args.quiet):
            models = load_models(args.models, args.backend)
        modules = _modules(args.wasm, models)
        service = Service(models, settings, workers=args.workers, modules=modules)
        announce = functools.partial(_announce, args, sock, models, settings)
        if args.workers > 1:
            from bitinfer.serve.workers import Supervisor

            return Supervisor(service, sock, args.workers).run(announce)
        server.serve(service, sock, when_open=announce)
        if service.engine.admitted:  # beyond the time to drain; exit would wait for its thread
            sys.stderr.flush()
            os._exit(1)
    return 0


def _settings(args: argparse.Namespace) -> Settings:
    from bitinfer.backends import usable_cpus
    from bitinfer.serve import Settings

    max_body = args.max_body << 20
    return Settings(
        threads=args.threads or max(1, usable_cpus() // args.workers),
        queue=args.queue,
        deadline_s=args.deadline,
        max_body_bytes=max_body,
        max_buffered_bytes=4 * max_body,
        max_batch=args.max_batch,
        max_connections=args.max_connections,
        linger_s=args.linger,
        drain_s=args.drain,
        access_log=not args.quiet,
        page=not args.no_page,
    )


def _modules(specs: Sequence[str], models: Models) -> dict[str, bytes]:
    """Read WebAssembly modules; return them by name of their model."""
    from bitinfer import files
    from bitinfer.errors import InputError, UsageError

    modules = {}
    for spec in specs:
        name, equals, path = spec.partition("=")
        if not equals or name not in models.names:
            raise UsageError(
                f"--wasm {printable(spec)}: wanted NAME=FILE with one of {', '.join(models.names)}"
            )
        data = files.read_regular(path, _MAX_MODULE, error=InputError, what="modules")
        if bytes(data[:4]) != b"\0asm":
            raise InputError(f"{path}: is no WebAssembly module")
        modules[name] = bytes(data)
    return modules


def _announce(
    args: argparse.Namespace, sock: socket.socket, models: Models, settings: Settings
) -> None:
    """Say where the server is and what bounds it; called when the port is open."""
    host, port = sock.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    names = ", ".join(f"{m.name}:{m.version} ({m.session.backend})" for m in models)
    note(f"serving {names} at {url}")
    if not args.quiet:
        note(
            f"bounds: {args.workers} processes of {settings.pool_threads} threads, "
            f"{settings.queue} requests waiting, {settings.deadline_s:g} s for an answer, "
            f"{args.max_body} MiB a body, {settings.max_connections} connections"
        )
        if host not in ("127.0.0.1", "::1"):
            note("there is no password: whoever reaches this address can use the models")
    if args.open:
        import webbrowser

        webbrowser.open(url)


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError(f"'{text[:40]}' is not a port from 0 to 65535")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"'{text[:40]}' is not a number of seconds")
    return value
