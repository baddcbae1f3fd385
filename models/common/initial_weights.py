"""Initial weights: of a run, one of its checkpoints, an export or a safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import Module, Parameter

from gearshift.models.base import DataError, OpenCheckpoint
from gearshift.models.common.data_reports import library_errors, listed
from gearshift.models.common.hugging_face import compare, has_values, stored_tensors, weights_of

ALLOWED = "a run folder, one of its checkpoints, an export or a safetensors file"
_MODEL = "model.safetensors"
_MANIFEST = "manifest.json"
_STATE = "state.json"


def find(path: Path) -> Path | None:
    """The file or checkpoint folder whose weights `path` stands for; None: there is none.

    Of a run folder the best checkpoint, or else the last, or else the newest one. Looks at names.
    """
    if path.is_file():
        return path
    steps = sorted((path / "checkpoints").glob("step-*"), reverse=True)
    for folder in (path, path / "best", path / "last", *steps):
        if (folder / _MODEL).is_file():
            return folder / _MODEL
        if (folder / _MANIFEST).is_file() and (folder / _STATE).is_file():
            return folder
    return None


class InitialWeights:
    """The weights at a path by name, each read on request.

    A safetensors file is read as it is. Of a checkpoint without model.safetensors the tensors are
    joined from the files of its processes. Parameters that have an average give the average.
    """

    def __init__(
        self,
        path: Path,
        setting: str,
        open_checkpoint: OpenCheckpoint | None = None,
    ) -> None:
        """`setting` is the key that names `path`. Reads heads of files. Raises DataError.

        `open_checkpoint`: of Context; without it, no files of processes are read.
        """
        source = find(path)
        if source is None:
            raise DataError(f"{setting} '{path}' has no weights", where=setting, allowed=ALLOWED)
        self.path = source
        self._what = f"{setting} '{source}'"
        self._is_file = source.is_file()
        if not self._is_file and open_checkpoint is None:
            raise DataError(
                f"{self._what} has no {_MODEL}",
                where=setting,
                allowed=ALLOWED,
                hint="give  self.context.open_checkpoint  to InitialWeights",
            )
        self._checkpoint: Any = None
        folder = source.parent if self._is_file else source
        with self._errors():
            if open_checkpoint is not None and (folder / _MANIFEST).is_file():
                self._checkpoint = open_checkpoint(folder)
            self.tensors: Mapping[str, Any]
            self.tensors = stored_tensors(source) if self._is_file else self._checkpoint.tensors

    def _errors(self) -> AbstractContextManager[None]:
        return library_errors(
            f"{self._what} cannot be read",
            str(self.path),
            allowed=ALLOWED,
        )

    def check(self) -> None:
        """Compare the files of a checkpoint with its checksums; other files have none.

        Reads each byte. Raises DataError.
        """
        if self._checkpoint is not None:
            with self._errors():
                self._checkpoint.check(self._is_file)

    def read_into(self, name: str, tensor: Tensor) -> None:
        """Overwrite `tensor`, of the stored shape, if it has memory. Reads the disk.

        Raises DataError, also for a weight that is NaN, or infinite though it was trained.
        """
        if not has_values(tensor):
            return
        with self._errors():
            self.tensors[name].read_into(tensor)
        if not isinstance(tensor, Parameter):
            return
        # One that is not trained may be infinite, such as a mask.
        is_wrong = ~tensor.isfinite() if tensor.requires_grad else tensor.isnan()
        if is_wrong.any():
            raise DataError(
                f"{self._what} has a weight that is not finite: '{name}'",
                where=str(self.path),
                allowed=ALLOWED,
            )


def _of_parts(tensors: Mapping[str, Any], parts: tuple[str, ...]) -> dict[str, Any]:
    return {name: tensor for name, tensor in tensors.items() if name.startswith(parts)}


def load(
    setting: str,
    model: Module,
    path: Path,
    allowed: str,
    parts: tuple[str, ...] = ("",),
    is_verified: bool = False,
    open_checkpoint: OpenCheckpoint | None = None,
) -> str:
    """Load the tensors of `model` from what `path` stands for; returns a summary.

    `setting` is the key that names `path`, and `allowed` its values, as text. Only names that
    begin with one of `parts` count, of the model and of what is stored. One tensor at a time is in
    memory. Reads the disk. Raises DataError unless these names and shapes match exactly, and for a
    file that is damaged or a weight that is not finite. `is_verified`: the checksums have been
    compared. `open_checkpoint`: of Context.
    """
    weights = InitialWeights(path, setting, open_checkpoint)
    tensors = _of_parts(weights_of(model), parts)
    coverage = compare(tensors, _of_parts(weights.tensors, parts))
    differences = [*coverage.unexpected, *coverage.random]
    if differences:
        what = "encoder" if setting.endswith(".encoder") else "model"
        raise DataError(
            f"{setting} '{weights.path}' is another {what}: "
            f"{len(coverage.matched)} of {len(tensors)} tensors match",
            where=listed(differences, 1),
            allowed=f"{allowed}, of the same model.size",
        )
    # Checksums cost a pass over the files: not where nothing is loaded.
    if not is_verified and any(map(has_values, tensors.values())):
        weights.check()
    for name, tensor in tensors.items():
        weights.read_into(name, tensor)
    return f"loaded {len(tensors)}/{len(tensors)} tensors from {weights.path}"
