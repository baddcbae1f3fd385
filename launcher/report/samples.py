"""Samples of a run: what its model predicted before and after training, a card for each."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gearshift.launcher.report.run_record import RunRecord
from gearshift.launcher.run_folder.reader import RunReader
from gearshift.launcher.run_folder.run_folder import AFTER, BEFORE, SAMPLES
from gearshift.training.storage import read_regular

PICTURE_BYTES = 600_000
"""Of all pictures of a report together, in base64: with the plots it stays below 700 KB."""
_INVALID = (KeyError, TypeError, ValueError, AttributeError, IndexError)
"""Raised for a file of another version."""


def read(run: RunRecord, room: int) -> dict[str, Any] | None:
    """The samples of `run` with pictures of at most `room` bytes; None: it has none. Reads the disk.

    `when` has the times, with the steps of the weights; `left_out` counts the pictures without room. Each of
    the `cards` is a sample: its `name`, its `texts` by column, twice if training changed them, and its
    `pictures` with `when`, `caption`, and `png` in base64. Raises InvalidRecord for a damaged file.
    """
    reader = RunReader(run.folder, redacts=True)
    files = {when: reader.object(f"{SAMPLES}/{when}.json") for when in (BEFORE, AFTER)}
    by_time = {when: content for when, content in files.items() if content}
    with suppress(*_INVALID):
        return _samples(run.folder / SAMPLES, by_time, room) if by_time else None
    return None


def _samples(folder: Path, by_time: Mapping[str, Mapping[str, Any]], room: int) -> dict[str, Any]:
    newest = by_time.get(AFTER) or by_time[BEFORE]
    shapes = [
        (content["columns"], [row[0] for row in content["rows"]]) for content in by_time.values()
    ]
    if shapes[0] != shapes[-1]:  # a resumed run may have other data
        by_time = {when: content for when, content in by_time.items() if content is newest}
    cards: list[dict[str, Any]] = []
    for rows in zip(*(content["rows"] for content in by_time.values()), strict=True):
        texts = list(_texts(newest["columns"], dict(zip(by_time, rows, strict=True))))
        cards.append({"name": str(rows[0][0]), "texts": texts, "pictures": []})
    # A custom task may draw other things than its samples.
    count = max(len(content["pictures"]) for content in by_time.values())
    others = (
        []
        if count == len(cards)
        else [{"name": "", "texts": [], "pictures": []} for _ in range(count)]
    )
    left_out = 0
    for when, content in reversed(list(by_time.items())):  # those before have no room first
        for card, picture in zip(others or cards, content["pictures"], strict=False):
            png = b""
            with suppress(OSError, ValueError):
                png = read_regular(folder / Path(str(picture["file"])).name)
            text = b64encode(png).decode()
            if not png.startswith(b"\x89PNG") or len(text) > room:
                left_out += 1
                continue
            room -= len(text)
            facts = {"when": f"{when} training", "png": text, "caption": str(picture["caption"])}
            card["pictures"].insert(0, facts)
    times = ", and ".join(
        f"{when} training, at step {int(each['step']):,}" for when, each in by_time.items()
    )
    cards = [*(card for card in others if card["pictures"]), *cards]
    return {"when": times, "cards": cards, "left_out": left_out}


def _texts(columns: list[str], rows: Mapping[str, list[Any]]) -> Iterator[tuple[str, str]]:
    for at, column in enumerate(columns[1:], start=1):
        texts = {when: _text(row[at]) for when, row in rows.items()}
        if len({*texts.values()}) == 1:
            yield str(column), next(iter(texts.values()))
        else:
            yield from ((f"{column}, {when} training", text) for when, text in texts.items())


def _text(cell: Any) -> str:
    text = f"{cell:.4g}" if isinstance(cell, float) else str(cell).strip("\n")
    return text if text.strip() else "–"
