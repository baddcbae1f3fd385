"""How the model goes on from a few prompts, beside how they went on, for a person to look at."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import Module

from models.base import Predictions
from models.common.chosen import spread
from models.language.dataset import Dataset
from models.language.generation import continue_tokens
from models.language.preview import readable

SHOWN = 3
PROMPT_TOKENS, TOKENS = 48, 48
"""At most: of a prompt, and of what follows."""
COLUMNS = ("source", "prompt", "wanted", "written", "tokens right")


def predict(model: Module, dataset: Dataset, device: torch.device) -> Predictions:
    """Rows spread over the validation split, the likeliest tokens written after their prompts.

    As many forward passes as the longest text that is wanted has tokens. Collective.
    """
    samples, tokenizer = dataset.split("val"), dataset.tokenizer
    rows = [_cut(dataset, place) for place in spread(len(samples), SHOWN)]
    count = max(len(wanted) for _, _, wanted in rows)
    written = continue_tokens(
        model, [prompt for _, prompt, _ in rows], count, pad=tokenizer.pad, device=device, seed=None
    )
    table: list[tuple[str | float, ...]] = []
    for (name, prompt, wanted), own in zip(rows, written, strict=True):
        own = own[: len(wanted)]
        texts = [readable(tokens, tokenizer) for tokens in (prompt, wanted, own)]
        table.append((name, *texts, float(np.mean(np.array(wanted) == np.array(own)))))
    return Predictions(COLUMNS, table)


def _cut(dataset: Dataset, place: int) -> tuple[str, list[int], list[int]]:
    """Where a row is from, the end of its prompt, and the beginning of what follows.

    Half of a row of text is prompt; of a request the answer follows.
    """
    length = dataset.rules.length
    if dataset.text:
        row = dataset.text["val"].row(place)
        tokens = [*row.inputs.tolist(), int(row.labels[-1])]
        prompt = min(PROMPT_TOKENS, length // 2, len(tokens) - 1)
        return row.name, tokens[:prompt], tokens[prompt : prompt + min(TOKENS, length - prompt)]
    rows = dataset.dialogues["val"]
    wanted = rows.answer(place)[: min(TOKENS, length // 2)].tolist()
    most = min(PROMPT_TOKENS, length - len(wanted))
    return rows.row(place).name, rows.prompt(place)[-most:].tolist(), wanted
