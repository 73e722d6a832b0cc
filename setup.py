"""Hooks the C extension into the build; everything else is in pyproject.toml."""

import functools
import shutil
import tempfile
from pathlib import Path

from setuptools import setup
from setuptools.command.build import build
from setuptools.command.build_py import build_py


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

setup(
    cmdclass={"build": Build, "build_py": BuildPackage},
    cffi_modules=["src/bitinfer/backends/native/_build.py:ffibuilder"],
)
