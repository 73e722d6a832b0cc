"""Networks as C: one unit and its header, for programs without Python."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection

from bitinfer.backends.native import source_dir
from bitinfer.errors import UsageError
from bitinfer.export_c import text
from bitinfer.export_c.amalgam import Sources
from bitinfer.export_c.network import Network, describe
from bitinfer.model import Model

__all__ = ["Exported", "export_c", "identifier"]


@dataclasses.dataclass(frozen=True)
class Exported:
    """A network in C.

    Attributes:
        source, header: the texts of ``bitinfer_NAME.c`` and ``bitinfer_NAME.h``.
        code: the source without the values of its constants, which compiles to the same code.
        network: what is in them.
    """

    source: str
    header: str
    code: str
    network: Network


def export_c(model: Model, name: str, isas: Collection[str] = ()) -> Exported:
    """Return a network as C, with the kernels of these instruction sets (none given: of all).

    ``name`` is a C identifier; it stands in the names of files, functions and macros.

    Raises:
        ImportError: there is no compiled extension: it lays out the weights.
        UsageError: an instruction set is unknown, or ``name`` is no identifier.
        BackendError: there are no C sources.
    """
    if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
        raise UsageError(f"'{name}' cannot be part of a C name; '{identifier(name)}' can")
    network = describe(model, name, isas)
    sources = Sources(source_dir())
    kernels = sorted(f"bi_{operation}_{method}_{isa}" for operation, method, isa in network.kernels)
    unit = sources.unit(kernels, after="kernels/isa.h")  # which run.inc wants, kernels may not

    def source(with_values: bool) -> str:
        parts = [
            text.head(network),
            *(f"#define {t} bitinfer_{name}_{t[3:]}" for t in sources.tables(unit)),
            sources.read("export/head.inc"),
            unit,
            sources.unit((), after="export/run_types.inc"),
            text.own_part(network, with_values=with_values),
            sources.unit((), after="export/run.inc"),
            text.entry_points(network),
        ]
        return "\n".join(parts)

    return Exported(source(True), text.header(network), source(False), network)


def identifier(text: str) -> str:
    """Return a C identifier that is like some text."""
    word = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_").lower()
    return word if word and not word[0].isdigit() else f"network_{word}".rstrip("_")
