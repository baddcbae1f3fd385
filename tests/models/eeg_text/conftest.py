from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models.base import Context
from models.eeg_text.config import Data, Model
from models.eeg_text.task import EegTextTask

SMALL = {
    "size": "tiny",
    "tokenizer": "bytes",
    "dropout": 0.0,
    "word_dropout": 0.0,
    "path": "embedded:reading-small",
    "seq_len": 480,
    "text_len": 40,
}


@pytest.fixture(scope="session")
def make_task() -> Callable[..., EegTextTask]:
    """A task that is not set up yet, of the small set; other settings by their name."""

    def make(folder: Path | None = None, share: float = 0.15, **settings: Any) -> EegTextTask:
        given = SMALL | settings
        in_model = {k: v for k, v in given.items() if k in Model.model_fields}
        in_data = {k: str(v) if k == "path" else v for k, v in given.items() if k not in in_model}
        context = Context(0, share, folder, torch.device("cpu"))
        return EegTextTask(Model(**in_model), Data(**in_data), context)

    return make


@pytest.fixture(scope="session")
def text_task(make_task) -> EegTextTask:
    """The small set, with EEG to text as the task."""
    task = make_task()
    task.setup()
    return task


@pytest.fixture(scope="session")
def masked_task(make_task) -> EegTextTask:
    """The small set without its text."""
    task = make_task(stage="encoder")
    task.setup()
    return task


@pytest.fixture(scope="session")
def batch_of() -> Callable[..., Any]:
    """The first samples of a split, as a batch."""

    def make(task: EegTextTask, split: str, count: int = 3) -> Any:
        from models.common.predictions import FixedDraws

        samples = task.data(split)
        return task.collate([samples.sample(i, FixedDraws()) for i in range(count)])

    return make
