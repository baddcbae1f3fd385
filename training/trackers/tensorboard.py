"""TensorBoard: RUN/tensorboard with curves, samples and settings."""

from __future__ import annotations

import importlib
import json
from textwrap import indent
from typing import Any

import numpy as np
from PIL import Image

from gearshift.training.callbacks.base import Facts, Numbers
from gearshift.training.trackers.follow import Run, Tracker


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
        lines = [" | ".join(map(str, row)) for row in (samples["columns"], *samples["rows"])]
        for picture in samples["pictures"]:
            image = np.asarray(Image.open(picture["path"]).convert("RGB"))
            tag = f"samples/{picture['name']}"
            self._writer.add_image(tag, image, step, dataformats="HWC")
            lines.append(f"{picture['name']}: {picture['caption']}")
        # As Markdown's code, in which nothing is interpreted.
        self._writer.add_text("samples/table", indent("\n".join(lines), "    "), step)

    def finish(self, summary: Facts, exit_code: int) -> None:
        if exit_code == 0:
            self._writer.file_writer.add_summary(self._end)
        self._writer.close()
