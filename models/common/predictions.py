"""Predictions: the samples they show, files to predict, and features of an encoder."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gearshift.models.base import Batch, DataError, Prediction, Split
from gearshift.models.common.data_files import files
from gearshift.models.common.data_reports import listed
from gearshift.models.common.family import spread_positions

if TYPE_CHECKING:
    from PIL.Image import Image


class FixedDraws:
    def rng(self) -> np.random.Generator:
        return np.random.default_rng(0)


def few_samples(split: Split, limit: int) -> list[Any]:
    """At most `limit` samples, spread over the split. May read from disk; raises DataError."""
    return [split.sample(index, FixedDraws()) for index in spread_positions(len(split), limit)]


def placed(batch: Batch, device: torch.device) -> dict[str, Any]:
    """`batch` with its tensors on `device`."""
    return {n: x.to(device) if isinstance(x, Tensor) else x for n, x in batch.items()}


def png(image: Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


OPTION = "--input"
_SETTING = "data.path"


@contextmanager
def input_errors() -> Iterator[None]:
    """Raises errors of readers for an input, not for data.path."""
    try:
        yield
    except DataError as error:
        error.message = error.message.replace(_SETTING, OPTION)
        error.where = error.where.replace(_SETTING, OPTION)
        if "--set data." in error.fix:
            error.fix = ""  # settings of data are those of the run
        raise


def passed_over(source: Path, inputs: Iterable[Path]) -> Iterator[Prediction]:
    """The files of a folder that are not `inputs`, nor stand beside such a file by its name.

    Reads the disk.
    """
    if not source.is_dir():
        return
    roots = {*inputs}
    stems = {file.with_name(file.name.split(".")[0]).as_posix() for file in roots}
    beside = tuple(stem + mark for stem in stems for mark in "._-")
    others = []
    for file in files(source):
        # The name of a folder that is an input begins as that of what is in it.
        if file not in roots and not file.as_posix().startswith(beside):
            others.append(file.relative_to(source).as_posix())
    if others:
        yield Prediction("passed-over", f"passed over, no input: {listed(others, 8)}")


class DistinctNames:
    """Names of predictions: letters, digits, "-", "_" and "." only, and none twice."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def of(self, text: str) -> str:
        """The name for `text`, such as a path; with a number if another text has that name."""
        start = re.sub(r"[^\w.-]+", "-", text).strip(".-") or "input"
        name = start
        number = 1
        while name.casefold() in self._names:  # some file systems ignore case
            number += 1
            name = f"{start}-{number}"
        self._names.add(name.casefold())
        return name


Array = NDArray[np.float32]


def features_file(
    name: str,
    title: str,
    items: Sequence[str],
    features: Array,
    valid: NDArray[np.bool_] | None = None,
    more: Mapping[str, NDArray[np.generic]] | None = None,
) -> Prediction:
    """The file of one input; numpy.load reads it.

    `items`: the names of its parts. `features` [item, token, width], of which those count that
    are `valid` [item, token]; None: all. `mean` [item, width] in the file is their mean. `more`
    are further arrays of the file.
    """
    if valid is None:
        valid = np.ones(features.shape[:2], dtype=bool)
    count = np.maximum(valid.sum(1, keepdims=True), 1)
    arrays = {
        "item": np.array(items, dtype=np.str_),
        "features": features,
        "valid": valid,
        "mean": ((features * valid[..., None]).sum(1) / count).astype(np.float32),
        **(more or {}),
    }
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    size = " × ".join(map(str, features.shape))
    text = f"{title}: features, {size} [item × token × width]"
    return Prediction(name, text, {".npz": file.getvalue()})
