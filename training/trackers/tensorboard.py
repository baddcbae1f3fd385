"""TensorBoard: RUN/tensorboard with curves, samples and settings."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from gearshift.training.callbacks.base import Facts, Numbers
from gearshift.training.trackers.follow import Run, Tracker

_PLAIN = frozenset(" ,;:.'\"/?=%@")


class Session(Tracker):
    def __init__(self, run: Run, project: str, id_: str) -> None:
        """Start the file. Imports TensorBoard."""
        board: Any = importlib.import_module("torch.utils.tensorboard")
        folder = run.folder / "tensorboard"
        self.notice = "notice", f"tensorboard --logdir {folder}"
        # `purge_step`: all earlier files are void.
        self._writer = board.SummaryWriter(
            str(folder),
            purge_step=0,
            max_queue=0,
            flush_secs=5,
        )
        settings = dict(run.settings)
        for key, value in settings.items():
            if isinstance(value, list | dict):
                settings[key] = json.dumps(value)
        # add_hparams would write them as another run.
        _, start, self._end = board.summary.hparams(settings, {})
        self._writer.file_writer.add_summary(start)

    def log(self, step: int, values: Numbers) -> None:
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, step)

    def log_samples(self, step: int, samples: Facts) -> None:
        texts = [_table(samples["columns"], samples["rows"])]
        for picture in samples["pictures"]:
            image = np.asarray(Image.open(picture["path"]).convert("RGB"))
            self._writer.add_image(
                f"samples/{picture['name']}",
                image,
                step,
                dataformats="HWC",
            )
            texts.append(f"{picture['name']}: {_escape(picture['caption'])}")
        self._writer.add_text("samples/table", "\n\n".join(texts), step)

    def finish(self, summary: Facts, exit_code: int) -> None:
        if exit_code == 0:
            self._writer.file_writer.add_summary(self._end)
        self._writer.close()


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [columns, ["---"] * len(columns)]
    for row in rows:
        texts = [cell if isinstance(cell, str) else f"{cell:.4g}" for cell in row]
        lines.append([_escape(text) for text in texts])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escape(text: str) -> str:
    """`text` with a character reference for each character that Markdown or HTML interprets."""
    characters = []
    for c in text:
        if c == "\n":
            characters.append("<br>")
        elif c.isalnum() or c in _PLAIN:
            characters.append(c)
        else:
            characters.append(f"&#{ord(c)};")
    return "".join(characters)
