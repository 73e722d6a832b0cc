"""Hooks the C extension into the build; everything else is in pyproject.toml."""

from setuptools import setup

setup(cffi_modules=["src/bitinfer/backends/native/_build.py:ffibuilder"])
