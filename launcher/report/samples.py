"""Samples of a run: what its model predicted before and after training, a card for each."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.report.run_record import RunRecord
from launcher.run.samples import AFTER, BEFORE, FOLDER
from launcher.run_folder.reader import RunReader
from training.storage import read_regular

PICTURE_BYTES = 600_000
"""Of all pictures of a report together, in base64: with the plots it stays below 700 KB."""
Content = Mapping[str, Any]
"""A file that launcher.run.samples wrote."""


@dataclass(frozen=True)
class SamplePicture:
    """A picture; `png` in base64."""

    when: str
    png: str
    caption: str


@dataclass
class SampleCard:
    """A sample."""

    name: str
    texts: Sequence[tuple[str, str]] = ()
    """The name of a column and its value, with its value before training if that was another."""
    pictures: list[SamplePicture] = field(default_factory=list)


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
    reader = RunReader(run.folder, redacts=True)
    files = {when: reader.object(f"{FOLDER}/{when}.json") for when in (BEFORE, AFTER)}
    by_time = {when: content for when, content in files.items() if content}
    if not by_time:
        return None
    try:
        return _samples(run.folder / FOLDER, by_time, room)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return None  # of another version


def _samples(folder: Path, by_time: Mapping[str, Content], room: int) -> ShownSamples:
    newest = by_time.get(AFTER) or by_time[BEFORE]
    shapes = [(content["columns"], [row[0] for row in content["rows"]]) for content in by_time.values()]
    if shapes[0] != shapes[-1]:  # a resumed run may have other data
        by_time = {when: content for when, content in by_time.items() if content is newest}
    cards = [
        SampleCard(str(row[0]), texts)
        for row, texts in zip(newest["rows"], _texts(list(by_time.items())), strict=True)
    ]
    count = max(len(content["pictures"]) for content in by_time.values())
    # A custom task may draw other things than its samples.
    of_pictures = cards if count == len(cards) else [SampleCard("") for _ in range(count)]
    left_out = 0
    for when, content in reversed(list(by_time.items())):  # those before have no room first
        for card, picture in zip(of_pictures, content["pictures"], strict=False):
            png = b""
            with suppress(OSError, ValueError):
                png = read_regular(folder / Path(str(picture["file"])).name)
            text = b64encode(png).decode()
            if not png.startswith(b"\x89PNG") or len(text) > room:
                left_out += 1
                continue
            room -= len(text)
            card.pictures.insert(0, SamplePicture(f"{when} training", text, str(picture["caption"])))
    others = [card for card in of_pictures if card.pictures] if of_pictures is not cards else []
    return ShownSamples(_when(by_time), [*others, *cards], left_out)


def _when(by_time: Mapping[str, Content]) -> str:
    """`before training, and after it with the weights of step 120`."""
    parts = ["before training"] if BEFORE in by_time else []
    if AFTER in by_time:
        after = "after it" if parts else "after training"
        parts.append(f"{after} with the weights of step {int(by_time[AFTER]['step']):,}")
    return ", and ".join(parts)


def _texts(by_time: Sequence[tuple[str, Content]]) -> list[list[tuple[str, str]]]:
    """The cells of each sample: those that training changed at both times, the others once."""
    tables = [content["rows"] for _, content in by_time]
    texts: list[list[tuple[str, str]]] = [[] for _ in tables[0]]
    for at, column in enumerate(by_time[-1][1]["columns"][1:], start=1):
        columns = [[row[at] for row in rows] for rows in tables]
        is_fixed = all(len({str(cell) for cell in cells}) == 1 for cells in zip(*columns, strict=True))
        for cards, *cells in zip(texts, *columns, strict=True):
            if is_fixed:
                cards.append((str(column), _text(cells[0])))
            elif all(isinstance(cell, int | float) for cell in cells):
                cards.append((str(column), " → ".join(map(_text, cells))))
            else:
                shown = zip(by_time, cells, strict=True)
                cards += [(f"{column}, {when} training", _text(cell)) for (when, _), cell in shown]
    return texts


def _text(cell: Any) -> str:
    if isinstance(cell, float):
        return f"{cell:.4g}"
    text = str(cell).strip("\n")
    return text if text.strip() else "–"
