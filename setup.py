"""Hooks the C extension into the build; everything else is in pyproject.toml."""

import functools
import tempfile

from setuptools import setup
from setuptools.command.build import build


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


setup(
    cmdclass={"build": Build},
    cffi_modules=["src/bitinfer/backends/native/_build.py:ffibuilder"],
)
