"""Samples of a run: what its model predicted before and after training, a card for each."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.report.run_record import RunRecord, read_object
from launcher.run.samples import AFTER, BEFORE, FOLDER

PICTURE_BYTES = 900_000
"""Of all pictures of a report together, in base64: with the plots it stays below 3 MB."""
_INVALID = (KeyError, TypeError, ValueError, AttributeError, IndexError)
"""Raised for samples of another version."""
Content = Mapping[str, Any]
"""A file that launcher.run.samples wrote."""


@dataclass(frozen=True)
class SamplePicture:
    """A picture."""

    when: str
    png: str
    """In base64."""
    caption: str


@dataclass(frozen=True)
class SampleCard:
    """A sample."""

    name: str
    pictures: Sequence[SamplePicture]
    texts: Sequence[tuple[str, str]]
    """The name of a column and its value, with its value before training if that was another."""


@dataclass(frozen=True)
class ShownSamples:
    """All samples of a run."""

    when: str
    """The times, with the steps of the weights."""
    cards: Sequence[SampleCard]
    left_out: int = 0
    """Pictures beyond the room for them."""


def read(run: RunRecord, room: int) -> ShownSamples | None:
    """The samples of `run` with pictures of at most `room` bytes; None: it has none.

    Reads the disk. Raises InvalidRecord for a damaged file.
    """
    files = {when: read_object(run.folder / FOLDER / f"{when}.json") for when in (BEFORE, AFTER)}
    by_time = {when: content for when, content in files.items() if content}
    if not by_time:
        return None
    try:
        return _samples(run.folder / FOLDER, by_time, room)
    except _INVALID:
        return None


def _samples(folder: Path, by_time: Mapping[str, Content], room: int) -> ShownSamples:
    newest = by_time.get(AFTER) or by_time[BEFORE]
    if not _is_comparable(by_time):
        by_time = {when: content for when, content in by_time.items() if content is newest}
    pictures, left_out = _pictures(folder, by_time, room)
    texts = [list(_texts(by_time, number)) for number in range(len(newest["rows"]))]
    names = [str(row[0]) for row in newest["rows"]]
    cards = []
    if len(pictures) != len(texts):  # a custom task may draw other things than its samples
        cards = [SampleCard("", shown, ()) for shown in pictures]
        pictures = [[] for _ in texts]
    cards += [SampleCard(*parts) for parts in zip(names, pictures, texts, strict=True)]
    return ShownSamples(_when(by_time), cards, left_out)


def _when(by_time: Mapping[str, Content]) -> str:
    """`before training, and after it with the weights of step 120`."""
    parts = ["before training"] if BEFORE in by_time else []
    if AFTER in by_time:
        after = "after it" if parts else "after training"
        parts.append(f"{after} with the weights of step {int(by_time[AFTER]['step']):,}")
    return ", and ".join(parts)


def _is_comparable(by_time: Mapping[str, Content]) -> bool:
    """Whether both files show the same samples: a resumed run may have other data."""
    shapes = [
        (content["columns"], [row[0] for row in content["rows"]]) for content in by_time.values()
    ]
    return all(shape == shapes[0] for shape in shapes)


def _texts(by_time: Mapping[str, Content], number: int) -> Iterator[tuple[str, str]]:
    """The cells of a sample: those that training changed at both times, the others once."""
    both = list(by_time.values())
    for at, column in enumerate(both[-1]["columns"][1:], start=1):
        cells = [content["rows"][number][at] for content in both]
        is_fixed = all(
            len({str(content["rows"][n][at]) for content in both}) == 1 for n in _rows(both)
        )
        if is_fixed:
            yield str(column), _text(cells[0])
        elif all(isinstance(cell, int | float) for cell in cells):
            yield str(column), " → ".join(_text(cell) for cell in cells)
        else:
            for when, cell in zip(by_time, cells, strict=True):
                yield f"{column}, {when} training", _text(cell)


def _rows(both: Sequence[Content]) -> range:
    return range(len(both[-1]["rows"]))


def _text(cell: Any) -> str:
    if isinstance(cell, float):
        return f"{cell:.4g}"
    text = str(cell).strip("\n")
    return text if text.strip() else "–"


def _pictures(
    folder: Path, by_time: Mapping[str, Content], room: int
) -> tuple[list[list[SamplePicture]], int]:
    """The pictures of each sample by time, and how many have no room: those before go first."""
    shown: dict[int, dict[str, SamplePicture]] = {}
    left_out = 0
    for when in reversed(list(by_time)):
        for number, picture in enumerate(by_time[when]["pictures"]):
            of_sample = shown.setdefault(number, {})
            png = _png(folder / Path(str(picture["file"])).name)
            if png is None or len(png) > room:
                left_out += 1
            else:
                room -= len(png)
                of_sample[when] = SamplePicture(f"{when} training", png, str(picture["caption"]))
    return [
        [of_sample[when] for when in by_time if when in of_sample] for of_sample in shown.values()
    ], left_out


def _png(path: Path) -> str | None:
    """The picture in base64; None: it cannot be read, or is none."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return b64encode(content).decode() if content.startswith(b"\x89PNG") else None
