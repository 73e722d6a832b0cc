"""Prints an exported network as C: the header, and what of the unit is the network's own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from bitinfer._version import __version__
from bitinfer.backends.native.records import Array, Record
from bitinfer.backends.native.structs import FIELDS
from bitinfer.backends.native.targets import listed, targets
from bitinfer.export_c.network import PREPARED_BYTES, Kernel, Network, Target
from bitinfer.files import one_line

_CONDITIONS = {
    "x86_64": "defined(__x86_64__)",
    "aarch64": "defined(__aarch64__)",
    "other": "!defined(__x86_64__) && !defined(__aarch64__)",
}
_C_TYPES = {
    "float32": "float",
    "float64": "double",
    "int8": "int8_t",
    "int16": "int16_t",
    "int32": "int32_t",
    "uint8": "uint8_t",
    "uint64": "uint64_t",
}
_WIDTH = 100


def header(network: Network) -> str:
    """Return the text of NAME.h."""
    n, upper = f"bitinfer_{network.name}", f"BITINFER_{network.name.upper()}"
    plan = network.plan
    shape = plan.buffers[plan.input].shape
    outputs = [plan.buffers[b] for b in plan.outputs]
    sizes = "".join(
        f"#{'el' if i else ''}if {_CONDITIONS[target.name]}\n"
        f"#define {upper}_NETWORK_BYTES {target.network_bytes}\n"
        f"#define {upper}_ARENA_BYTES {target.arena_bytes}\n"
        for i, target in enumerate(network.targets)
    )
    counts = "".join(
        f"#define {upper}_{_output_macro(network, i)} {math.prod(b.shape)}    /* "
        f"{_safe(name)}, {_shape(b.shape)} */\n"
        for i, (b, name) in enumerate(zip(outputs, plan.output_names, strict=True))
    )
    kind = "uint8_t" if network.takes_pixels else "float"
    meaning = "bytes 0 to 255" if network.takes_pixels else "the network's input"
    nowhere = (
        ""
        if len(network.targets) == len(_CONDITIONS)
        else f'#else\n#error "{n} has no kernels for this CPU; see bitinfer export-c --isa"\n'
    )
    arguments = f"const {kind} *{_input_name(network)}, {_output_arguments(network)}"
    return f"""\
/* {n}.h -- the network "{_safe(network.title)}", exported by bitinfer {__version__}.
 *
 * sha256 of its graph and weights: {network.origin}
 *
 * One unit, {n}.c, C11 or C++11 and libc, compiled by
 *
 *     cc -O2 -c {n}.c           (link with -lm)
 *
 * It allocates nothing, and takes the kernels that this CPU runs.
 *
 * Input: [{"][".join(map(str, shape))}], the last index is the channel; {meaning}.
 */
#ifndef {upper}_H
#define {upper}_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

#define {upper}_INPUTS {math.prod(shape)}
{counts}
/* Bytes of a prepared network, and of the arena of one call. */
{sizes}{nowhere}#endif

enum {{
    {upper}_OK = 0,
    {upper}_NO_KERNEL = -1,     /* this CPU lacks the instruction sets that it was exported for */
    {upper}_MISALIGNED = -2,    /* memory is NULL, or not on a multiple of 64 */
    {upper}_TOO_SMALL = -3      /* memory has too few bytes */
}};

#ifndef {upper}_REENTRANT_ONLY
/* Run the network once; one call at a time.  The first call prepares it.
 * Network and arena are static: define {upper}_REENTRANT_ONLY, for the unit too, to do
 * without. */
int {n}_run({arguments});
#endif

/* Choose kernels for this CPU and re-lay the weights for them, into `bytes` bytes on a multiple of
 * 64 ({upper}_NETWORK_BYTES are enough), which are only read from then on. */
int {n}_prepare(void *network, size_t bytes);

/* Run a prepared network in an arena of {upper}_ARENA_BYTES bytes on a multiple of 64.
 * Calls may share the network at the same time, each with an arena and outputs of its own. */
int {n}_run_in(const void *network, void *arena, {arguments});

#ifdef __cplusplus
}}
#endif

#endif
"""


def own_part(network: Network, *, with_values: bool = True) -> str:
    """Return constants, steps, places and the list of kernels, between head and runtime.

    Without values, constants are only declared: the rest compiles sooner, to the same code.
    """
    arrays = _Arrays()
    steps = list(_steps(network, arrays))
    return "\n".join([arrays.text(with_values=with_values), _list(network), *steps])


def head(network: Network) -> str:
    """Return what begins the unit: its header, and the names that csrc/export/ goes by."""
    n, upper = f"bitinfer_{network.name}", f"BITINFER_{network.name.upper()}"
    richest = "".join(
        f"#{'el' if i else ''}if {_CONDITIONS[target.name]}\n"
        f"#define BI_EXPORTED_ISA BI_ISA_{target.isas[-1]}\n"
        for i, target in enumerate(network.targets)
    )
    lines = [
        f"/* {n}.c -- exported by bitinfer {__version__}; {n}.h says how to use it. */",
        f'#include "{n}.h"',
        "",
        f"#define BI_EXPORTED_STEPS {len(network.records)}",
        f"#define BI_EXPORTED_STEP_BYTES {PREPARED_BYTES}",
        *(
            f"#define BI_EXPORTED_{code} {upper}_{code}"
            for code in ("OK", "NO_KERNEL", "MISALIGNED", "TOO_SMALL")
        ),
        f"{richest}#endif",
    ]
    return "\n".join([*lines, ""])


def entry_points(network: Network) -> str:
    """Return the functions that the header declares."""
    n, upper = f"bitinfer_{network.name}", f"BITINFER_{network.name.upper()}"
    kind = "uint8_t" if network.takes_pixels else "float"
    parameters = f"const {kind} *{_input_name(network)}, {_output_arguments(network)}"
    names = [_output_name(network, i) for i in range(len(network.plan.outputs))]
    given = ", ".join([_input_name(network), *names])
    externals = ",\n        ".join(
        [
            f"(unsigned char *)(uintptr_t){_input_name(network)}",
            *(f"(unsigned char *){name}" for name in names),
        ]
    )
    return f"""
int {n}_prepare(void *network, size_t bytes)
{{
    return bi_prepare((unsigned char *)network, bytes);
}}

int {n}_run_in(const void *network, void *arena, {parameters})
{{
    unsigned char *const externals[] = {{
        {externals}}};    /* kernels only read the first */
    return bi_run_steps((const unsigned char *)network, (unsigned char *)arena, externals);
}}

#ifndef {upper}_REENTRANT_ONLY
static unsigned char bi_network[{upper}_NETWORK_BYTES] __attribute__((aligned(64)));
static unsigned char bi_arena[{upper}_ARENA_BYTES] __attribute__((aligned(64)));

int {n}_run({parameters})
{{
    static int is_prepared;
    if (!is_prepared) {{
        int code = bi_prepare(bi_network, sizeof bi_network);
        if (code != {upper}_OK)
            return code;
        is_prepared = 1;
    }}
    return {n}_run_in(bi_network, bi_arena, {given});
}}
#endif
"""


def _input_name(network: Network) -> str:
    return "pixels" if network.takes_pixels else "input"


def _output_name(network: Network, index: int) -> str:
    return "logits" if len(network.plan.outputs) == 1 else f"output_{index}"


def _output_macro(network: Network, index: int) -> str:
    return "OUTPUTS" if len(network.plan.outputs) == 1 else f"OUTPUTS_{index}"


def _output_arguments(network: Network) -> str:
    count = len(network.plan.outputs)
    return ", ".join(f"float *{_output_name(network, i)}" for i in range(count))


def _list(network: Network) -> str:
    """Return the list of kernels: those of kernels.inc that a step may get, in its order."""
    operations = _operations(network)
    lines = ["static const bi_listed bi_list[] = {"]
    for operation, method, isa in _in_order(network.kernels):
        condition = _condition_of(isa)
        if condition:
            lines.append(f"#if {condition}")
        lines.append(
            f"    {{{operations[operation]}, BI_ISA_{isa}, &bi_{operation}_{method}_{isa}}},"
        )
        if condition:
            lines.append("#endif")
    return "\n".join([*lines, "};", ""])


def _in_order(kernels: Iterable[Kernel]) -> list[Kernel]:
    wanted = set(kernels)
    return [line for line in listed() if line in wanted]


def _operations(network: Network) -> dict[str, int]:
    names = dict.fromkeys(record.operation for record in network.records)
    return {name: number for number, name in enumerate(names)}


def _condition_of(isa: str) -> str:
    """Return the condition of the one target that has an instruction set, or nothing."""
    if isa == "portable":
        return ""
    return next(_CONDITIONS[name] for name, isas in targets().items() if isa in isas)


def _steps(network: Network, arrays: _Arrays) -> Iterator[str]:
    """Yield the structs of all steps, for one target after the other."""
    for i, target in enumerate(network.targets):
        yield f"#{'el' if i else ''}if {_CONDITIONS[target.name]}"
        yield "static const bi_step bi_steps[BI_EXPORTED_STEPS] = {"
        for index, record in enumerate(network.records):
            stored = target.stored[index]
            fields = dict(_fields(record, arrays, index, target))
            if stored is not None:
                is_relaid = stored.data.dtype == np.uint8
                data = _as_words(stored.data) if is_relaid else stored.data
                fields["weight"] = arrays.name(data, f"weight_{index}", target)
            ordered = (f".{name} = {fields[name]}" for name in FIELDS if name in fields)
            yield f"    {{{_wrapped(ordered)}}},    /* {_safe(record.name)}: {record.operation} */"
        yield "};"
        yield "static const bi_site bi_sites[BI_EXPORTED_STEPS] = {"
        operations, kernels = _operations(network), _kernel_numbers(network, target)
        for index, record in enumerate(network.records):
            yield f"    {{{', '.join(_site(record, index, target, operations, kernels))}}},"
        yield "};"
    yield "#endif"


def _kernel_numbers(network: Network, target: Target) -> dict[Kernel, int]:
    """Return the place of every kernel in the list, as one target sees it."""
    here = targets()[target.name]
    there = [kernel for kernel in _in_order(network.kernels) if kernel[2] in here]
    return {kernel: number for number, kernel in enumerate(there)}


def _site(
    record: Record,
    index: int,
    target: Target,
    operations: dict[str, int],
    kernels: dict[Kernel, int],
) -> Iterator[str]:
    stored, placement = target.stored[index], target.placement
    in_place = 0
    for method, isa in stored.in_place if stored is not None else ():
        in_place |= 1 << kernels[record.operation, method, isa]
    yield str(operations[record.operation])
    yield f"{in_place:#x}u"
    for field in ("source", "beta", "target", "signs", "scratch", "residual"):
        if field == "scratch":
            yield str(placement.scratch[index])
        else:
            buffer = record.buffers.get(field)
            begin = record.begins.get(field, 0)
            yield "0" if buffer is None else str(placement.buffers[buffer] + begin)
    yield str(target.scratch[index])


def _fields(
    record: Record, arrays: _Arrays, index: int, target: Target
) -> Iterator[tuple[str, str]]:
    for name, number in record.numbers.items():
        is_float = FIELDS[name] == "float"
        yield name, _number(np.float32(number)) if is_float else str(number)
    for name, constants in record.constants.items():
        yield name, " | ".join(constants)
    for name, array in record.arrays.items():
        yield name, arrays.name(array, f"{name}_{index}", target)


class _Arrays:
    """The constants of all targets, each content once."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, bytes], str] = {}
        self._arrays: dict[str, Array] = {}
        self._targets: dict[str, list[str]] = {}

    def name(self, array: Array, name: str, target: Target) -> str:
        """Return what a constant is called."""
        array = np.ascontiguousarray(array).reshape(-1)
        if not array.size:
            return "NULL"
        name = self._names.setdefault((array.dtype.str, array.tobytes()), f"bi_{name}")
        if name in self._arrays and self._arrays[name].tobytes() != array.tobytes():
            name = self._names[array.dtype.str, array.tobytes()] = f"{name}_{target.name}"
        self._arrays[name] = array
        of_name = self._targets.setdefault(name, [])
        if target.name not in of_name:
            of_name.append(target.name)
        return name

    def text(self, *, with_values: bool) -> str:
        return "\n".join(self._text_of(name, with_values) for name in self._arrays)

    def _text_of(self, name: str, with_values: bool) -> str:
        array = self._arrays[name]
        if not with_values:
            return f"extern const {_C_TYPES[array.dtype.name]} {name}[{len(array)}];"
        kind = _C_TYPES[array.dtype.name]
        lines = _rows(_number(value) for value in array)
        text = (
            f"static const {kind} {name}[{len(array)}] __attribute__((aligned(64))) = {{\n"
            f"{lines}\n}};"
        )
        condition = " || ".join(f"({_CONDITIONS[t]})" for t in self._targets[name])
        return f"#if {condition}\n{text}\n#endif"


def _as_words(data: Array) -> Array:
    """Return bytes as words of 64 bits: shorter to print, and compiled sooner."""
    return np.pad(data, (0, -data.size % 8)).view("<u8").astype(np.uint64)


def _number(value: object) -> str:
    """Return a number as C spells it."""
    if isinstance(value, np.uint64):
        return f"{int(value):#x}u" if value < 1 << 32 else f"{int(value):#x}ull"
    if isinstance(value, np.floating):
        if not np.isfinite(value):
            return "NAN" if np.isnan(value) else f"{'-' if value < 0 else ''}INFINITY"
        is_double = isinstance(value, np.float64)
        text = f"{float(value):.{17 if is_double else 9}g}"
        text = text if any(c in text for c in ".e") else f"{text}.0"
        return text if is_double else f"{text}f"
    assert isinstance(value, np.integer)
    return str(int(value)) if value > np.iinfo(np.int32).min else f"({int(value) + 1} - 1)"


def _rows(items: Iterable[str]) -> str:
    """Return items in rows of about a line's width."""
    rows: list[list[str]] = [[]]
    width = 0
    for item in items:
        if width + len(item) > _WIDTH:
            rows.append([])
            width = 0
        rows[-1].append(item)
        width += len(item) + 2
    return ",\n".join(f"    {', '.join(row)}" for row in rows)


def _wrapped(fields: Iterable[str]) -> str:
    return _rows(fields).lstrip().replace("\n    ", "\n     ")


def _safe(text: str) -> str:
    """Return foreign text as a comment may hold it."""
    return one_line(text, 60).replace("*/", "* /").replace("/*", "/ *").replace("\\", "/")


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
