"""``bitinfer export-c``: writes a network as C, for programs without Python."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitinfer.cli import _common
from bitinfer.cli._terminal import note, printable, show, table

if TYPE_CHECKING:
    from bitinfer.documents.models import ExportC, ExportedCode
    from bitinfer.export_c import Exported


def add_parser(subparsers: Any) -> None:
    """Register the command and its arguments."""
    parser = subparsers.add_parser(
        "export-c",
        help="write a network as C",
        description="Write a network as one C file and its header: the kernels that it needs, its "
        "weights, and a function that runs it. The file is C11 and C++11, needs libc alone and "
        "allocates nothing; the header says how to use it. The CPU that the program runs on "
        "decides which kernels are taken. ROM and RAM are shown before anything is written.",
    )
    parser.add_argument("model", metavar="MODEL", help="model file")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="folder to write into"
    )
    parser.add_argument(
        "--isa",
        type=_names,
        default=(),
        metavar="NAME,...",
        help="instruction sets to have kernels for, such as portable,avx2,neon (default: all); "
        "without portable the program runs on CPUs that have one of them alone",
    )
    parser.add_argument(
        "--name",
        metavar="NAME",
        help="part of the names of files and functions (default: from the model file's name)",
    )
    _common.add_quiet(parser)
    _common.add_json(parser, "export-c")


def run(args: argparse.Namespace) -> int:
    """Describe the network, then write it."""
    from bitinfer import files, modelfile
    from bitinfer.documents import SCHEMA_VERSION, models
    from bitinfer.errors import BackendError, OutputError

    try:
        from bitinfer import export_c as export
    except ImportError as error:
        raise BackendError(
            "export-c: there is no compiled extension, which lays out the weights; install a C "
            "compiler, then bitinfer again"
        ) from error
    files.refuse_dash("--output", args.output)
    there = next(
        place for place in (args.output, *args.output.absolute().parents) if place.exists()
    )
    if not there.is_dir():
        raise OutputError(f"cannot make {args.output}: {there} is no folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write into {there}: permission denied")
    model = modelfile.load(args.model)
    name = args.name or export.identifier(Path(args.model).stem)
    exported = export.export_c(model, name, args.isa)
    network = exported.network
    if not args.quiet:
        note("compiling it, to measure the size of the code")
    header, source = (args.output / f"bitinfer_{name}.{suffix}" for suffix in ("h", "c"))
    answer = models.ExportC(
        schema_version=SCHEMA_VERSION,
        model=_common.model_file(args.model),
        name=name,
        header=str(header),
        source=str(source),
        targets=tuple(
            models.ExportTarget(
                name=target.name,
                instruction_sets=target.isas,
                constant_bytes=target.constant_bytes,
                network_bytes=target.network_bytes,
                arena_bytes=target.arena_bytes,
            )
            for target in network.targets
        ),
        kernels=tuple(" ".join(kernel) for kernel in sorted(network.kernels)),
        code=_code(exported),
    )
    if not args.json and not args.quiet:
        show([[(line, "")] for line in _as_text(answer)])
    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {args.output}: {error.strerror or error}") from error
    files.write_atomically(header, exported.header.encode())
    files.write_atomically(source, exported.source.encode())
    if args.json:
        _common.print_json(answer)
    elif not args.quiet:
        note(f"wrote {header} and {source}")
    return 0


def _code(exported: Exported) -> ExportedCode | None:
    from bitinfer.documents import models
    from bitinfer.export_c import measure

    size = measure.code_bytes(exported)
    if size is None:
        return None
    return models.ExportedCode(
        bytes=size, compiler=measure.described_compiler(), target=measure.compiled_for()
    )


def _names(text: str) -> tuple[str, ...]:
    found = tuple(name.strip() for name in text.split(",") if name.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"'{printable(text)}' names no instruction set")
    return found


def _as_text(answer: ExportC) -> list[str]:
    head = ("CPU", "constants", "network", "arena", "instruction sets")
    rows = [
        (
            target.name,
            f"{target.constant_bytes:,}",
            f"{target.network_bytes:,}",
            f"{target.arena_bytes:,}",
            ", ".join(target.instruction_sets),
        )
        for target in answer.targets
    ]
    lines = [
        f"network   {answer.name}, {len(answer.kernels)} kernels",
        "",
        *table([head, *rows], right=frozenset((1, 2, 3))),
        "",
        "bytes: constants are ROM, a prepared network and the arena of a call are RAM",
    ]
    code = answer.code
    if code is None:
        return [*lines, "code: not measured, there is no C compiler for this CPU and export here"]
    constants = next(t.constant_bytes for t in answer.targets if t.name == code.target)
    return [
        *lines,
        f"code: {code.bytes:,} bytes more of ROM on {code.target}, {code.bytes + constants:,} in "
        f"all, by {printable(code.compiler)}",
    ]
