"""What is served: models by name and version."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer import session as sessions
from bitinfer.documents import serving
from bitinfer.errors import ModelFileError, UsageError
from bitinfer.files import one_line
from bitinfer.serve import pictures
from bitinfer.serve.protocol import RequestError
from bitinfer.session import Session

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


@dataclasses.dataclass(frozen=True)
class ServedModel:
    """One version of a model."""

    name: str
    version: str
    session: Session

    @property
    def takes_pictures(self) -> bool:
        """Whether the model file says how a picture becomes the input."""
        return self.session.model.preprocessing is not None

    @property
    def datatypes(self) -> tuple[serving.Datatype, ...]:
        """What the input may consist of."""
        if self.session.inputs[0].dtype == "uint8":
            return ("UINT8",)
        return ("FP32", "UINT8") if self.takes_pictures else ("FP32",)

    def self_test(self) -> None:
        """Run the network on every type of input that it takes.

        The input is the same everywhere and has all values of a byte.  A sample alone and the same
        sample in a batch must give the same bits.

        Raises:
            ModelFileError: they do not, or the output is not finite.
        """
        for datatype in self.datatypes:
            batch = _test_input(self.session.inputs[0].shape, datatype)
            both = _outputs(self.session, self.session.run(batch))
            alone = _outputs(self.session, self.session.run(batch[1]))
            for name, values in alone.items():
                if not np.isfinite(values).all():
                    raise ModelFileError(
                        f"{self.name}:{self.version}: self-test: {one_line(name)} is not finite"
                    )
                if values.tobytes() != both[name][1].tobytes():
                    raise ModelFileError(
                        f"{self.name}:{self.version}: self-test: {one_line(name)} of a sample "
                        "differs between alone and in a batch; report it with 'bitinfer info'"
                    )

    def metadata(self, versions: tuple[str, ...]) -> serving.ModelMetadata:
        """Describe the model as the protocol does."""
        session = self.session
        inputs = tuple(
            serving.TensorMetadata(
                name=info.name, datatype=self.datatypes[0], shape=(-1, *info.shape)
            )
            for info in session.inputs
        )
        outputs = tuple(
            serving.TensorMetadata(name=info.name, datatype="FP32", shape=(-1, *info.shape))
            for info in session.outputs
        )
        return serving.ModelMetadata(
            name=self.name,
            versions=versions,
            platform="bitinfer",
            inputs=inputs,
            outputs=outputs,
            parameters={
                "version": self.version,
                "sha256": session.model.sha256,
                "backend": session.backend,
                "labels": list(session.model.labels),
                "takes_pictures": self.takes_pictures,
                "takes_pixels": "UINT8" in self.datatypes,
            },
        )


class Models:
    """Models by name and version.

    Raises:
        UsageError: there is none, or a version of a model twice.
    """

    def __init__(self, models: Iterable[ServedModel]) -> None:
        self._models: dict[str, dict[str, ServedModel]] = {}
        for model in models:
            versions = self._models.setdefault(model.name, {})
            if model.version in versions:
                raise UsageError(
                    f"{model.name}: version {model.version} is given twice; give another name or "
                    f"version, such as {model.name}:{int(model.version) + 1}=FILE"
                )
            versions[model.version] = model
        if not self._models:
            raise UsageError("there is no model to serve")
        for name, versions in self._models.items():
            self._models[name] = dict(sorted(versions.items(), key=lambda item: int(item[0])))

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in the order in which they were given."""
        return tuple(self._models)

    def __iter__(self) -> Any:
        return (model for versions in self._models.values() for model in versions.values())

    def find(self, name: str, version: str | None = None) -> ServedModel:
        """Return a model; without a version, the highest.

        Raises:
            RequestError: there is none.
        """
        versions = self._models.get(name)
        if versions is None:
            raise RequestError(404, f"there is no model '{one_line(name, 60)}'")
        if version is None:
            return next(reversed(versions.values()))
        if version not in versions:
            raise RequestError(
                404,
                f"there is no version '{one_line(version, 20)}' of {name}, but "
                f"{', '.join(versions)}",
            )
        return versions[version]

    def versions(self, name: str) -> tuple[str, ...]:
        """Return all versions of a model, the oldest first."""
        return tuple(self._models[name])

    def self_test(self) -> None:
        """Run every model once; see :meth:`ServedModel.self_test`."""
        if any(model.takes_pictures for model in self):
            pictures.warm_up()
        for model in self:
            model.self_test()


def load_models(specs: Iterable[str], backend: str = "auto") -> Models:
    """Load model files and test them.

    A spec is ``FILE``, ``NAME=FILE`` or ``NAME:VERSION=FILE``; a model is called as its file
    without the suffix, and its version is 1, unless the spec says otherwise.

    Raises:
        UsageError: a spec is none, or two have one name and version.
        ModelFileError, BackendError, MissingExtraError: see :func:`bitinfer.load`.
    """
    models = Models(_load(spec, backend) for spec in specs)
    models.self_test()
    return models


def from_sessions(sessions: Mapping[str, Session]) -> Models:
    """Return sessions that are loaded already as models of version 1, tested."""
    models = Models(ServedModel(name, "1", session) for name, session in sessions.items())
    models.self_test()
    return models


def _load(spec: str, backend: str) -> ServedModel:
    head, equals, path = spec.partition("=")
    if "/" in head or not equals:
        equals, path = "", spec
    name, colon, version = (head if equals else Path(path).stem).partition(":")
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"'{one_line(name)}' is no name for a model: letters, digits, '.', '_' and '-'; "
            "write NAME=FILE"
        )
    if colon and not _VERSION.fullmatch(version):
        raise UsageError(f"'{one_line(version)}' is no version for {name}: a number from 1")
    return ServedModel(name, version or "1", sessions.load(path, backend))


def _test_input(shape: tuple[int, ...], datatype: str) -> NDArray[Any]:
    """Return two samples, (2, *shape)."""
    values = np.arange(2 * int(np.prod(shape)), dtype=np.int64) * 89 % 256
    batch = values.astype(np.uint8).reshape(2, *shape)
    return batch if datatype == "UINT8" else batch.astype(np.float32) / 128 - 1


def _outputs(session: Session, result: Any) -> dict[str, NDArray[np.float32]]:
    return result if isinstance(result, dict) else {session.outputs[0].name: result}
