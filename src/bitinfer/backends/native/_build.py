"""Builds the C extension ``bitinfer.backends.native._native``; run by setup.py, never imported.

Without a C compiler the build goes on without the extension, unless BITINFER_REQUIRE_C=1.
"""

import os
import re
from pathlib import Path

from cffi import FFI

_CSRC = Path("csrc")
_HEADER = _CSRC / "bitinfer.h"

ffibuilder = FFI()
_cdef = re.search(r"/\* cdef-begin \*/(.*)/\* cdef-end \*/", _HEADER.read_text(), re.DOTALL)
if _cdef is None:
    raise SystemExit(f"{_HEADER}: the cdef marks are missing")
ffibuilder.cdef(_cdef.group(1))
ffibuilder.set_source(
    "bitinfer.backends.native._native",
    '#include "bitinfer.h"',
    sources=sorted(str(path) for path in _CSRC.rglob("*.c")),
    include_dirs=[str(_CSRC)],
    # setuptools rebuilds only for what is listed: without these an edited header changes nothing.
    depends=sorted(str(path) for suffix in ("*.h", "*.inc") for path in _CSRC.rglob(suffix)),
    # Contraction would round float layers differently from one instruction set to the next.
    # Debugging information names the folder of the build: without it, two builds are one.
    extra_compile_args=[
        "-std=c11",
        "-O3",
        "-g0",
        "-ffp-contract=off",
        "-fvisibility=hidden",
        "-pthread",
    ],
    extra_link_args=["-pthread"],
    libraries=["m"],
    optional=os.environ.get("BITINFER_REQUIRE_C") != "1",
)
