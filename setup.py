"""Hooks the C extension into the build; everything else is in pyproject.toml."""

import functools
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import CompileError


@functools.cache
def _fresh_directory() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="bitinfer-build-")


class Build(build):
    """Builds a wheel in a directory of its own.

    setuptools would build in ``build/`` and put whatever an earlier build left there into the
    wheel: after a failed compilation, the extension of another day.
    """

    def initialize_options(self) -> None:
        """Set the defaults of the command's options."""
        super().initialize_options()
        if "bdist_wheel" in self.distribution.commands:
            self.build_base = _fresh_directory().name


class BuildPackage(build_py):
    """Puts csrc/ into the package, so that the C sources are where the library is installed."""

    def run(self) -> None:
        """Copy the package, then the C sources; an editable installation reads those beside it."""
        super().run()
        if not self.editable_mode:
            for source, target in self._sources():
                Path(target).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Return the files that are built, for the record of what is installed."""
        sources = [] if self.editable_mode else [target for _, target in self._sources()]
        return [*super().get_outputs(include_bytecode), *sources]

    def _sources(self) -> list[tuple[str, str]]:
        files = (path for path in sorted(Path("csrc").rglob("*")) if path.suffix in _C_SUFFIXES)
        return [(str(path), str(Path(self.build_lib, "bitinfer", path))) for path in files]


_C_SUFFIXES = (".c", ".h", ".inc")


class BuildExtension(build_ext):
    """Compiles on all cores, and of what an earlier build left only the files that have changed.

    setuptools would compile one file after the other, and all of them after any change.
    """

    def build_extensions(self) -> None:
        """Build the extensions with a compiler that leaves out what is up to date."""
        self._started = time.time_ns()
        # Always link: times do not show a file that is gone, or other flags.
        self.force = self.compiler.force = True
        self.compiler.compile = functools.partial(_compile, self.compiler)
        super().build_extensions()

    def copy_extensions_to_source(self) -> None:
        """Copy the extensions beside the sources, as new as what they were built from."""
        super().copy_extensions_to_source()
        for extension in self.extensions:
            path = Path(self.get_ext_fullpath(extension.name))
            if path.exists():
                os.utime(path, ns=(self._started, self._started))


def _compile(
    compiler: Any,
    sources: list[str],
    output_dir: str | None = None,
    macros: list[Any] | None = None,
    include_dirs: list[str] | None = None,
    debug: bool = False,
    extra_preargs: list[str] | None = None,
    extra_postargs: list[str] | None = None,
    depends: list[str] | None = None,
) -> list[str]:
    """Do what ``CCompiler.compile`` does, with the same arguments, for the files that need it."""
    _, objects, postargs, options, _ = compiler._setup_compile(
        output_dir, macros, include_dirs, sources, depends, extra_postargs
    )
    arguments = compiler._get_cc_args(options, debug, extra_preargs)

    def compile_one(target: str, source: str) -> None:
        made_of, new = Path(f"{target}.d"), f"{target}.new"
        command = [*compiler.compiler_so, *arguments, source, "-o", new, *postargs]
        command += ["-MMD", "-MF", str(made_of), "-MT", "object"]
        made_by = Path(f"{target}.command")
        if _is_current(Path(target), made_by, made_of, command):
            return
        started = time.time_ns()
        made_by.unlink(missing_ok=True)
        if subprocess.run(command, check=False).returncode:
            raise CompileError(f"{source}: the compiler refuses it")
        os.utime(new, ns=(started, started))  # an edit while the compiler ran makes it old again
        Path(new).replace(target)
        made_by.write_text("\n".join(command))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(compile_one, objects, sources):
            pass
    return list(objects)


def _is_current(target: Path, made_by: Path, made_of: Path, command: list[str]) -> bool:
    """Whether an object is what the command would make again of the files that it read."""
    try:
        made_at = target.stat().st_mtime_ns
        if made_by.read_text() != "\n".join(command):
            return False
        return all(path.stat().st_mtime_ns < made_at for path in _read_by(made_of))
    except FileNotFoundError:
        return False


def _read_by(made_of: Path) -> Iterator[Path]:
    """Yield the files that a list of dependencies, as compilers write it, names."""
    _, _, names = made_of.read_text().replace("\\\n", " ").partition(":")
    for name in re.findall(r"(?:\\ |\S)+", names):
        yield Path(name.replace("\\ ", " "))


setup(
    cmdclass={"build": Build, "build_py": BuildPackage, "build_ext": BuildExtension},
    cffi_modules=["src/bitinfer/backends/native/_build.py:ffibuilder"],
)
