"""A sample of what the model writes, for a person to read."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch.nn import Module

from models.base import Picture, Predictions
from models.common.fixed_samples import spread_positions
from models.language.dataset import Dataset
from models.language.head import IGNORE
from models.language.rows import Row
from models.language.tokens.tokenizer import Tokenizer

TEMPERATURE = 0.8


@torch.no_grad()
def continue_tokens(
    model: Module,
    prompts: Sequence[Sequence[int]],
    count: int,
    *,
    pad: int,
    device: torch.device,
    seed: int | None,
) -> list[list[int]]:
    """`count` tokens after each of `prompts`: the likeliest each time, or with `seed` drawn.

    Always `count` forward passes over one shape, so that ranks that hold parts of the model stay in
    step and a compiled model is compiled once. Collective where the model is sharded.
    """
    starts = torch.tensor([len(prompt) for prompt in prompts])
    shape = (len(prompts), int(starts.max()) + count)
    tokens = torch.full(shape, pad, dtype=torch.int64, device=device)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = torch.tensor(list(prompt))
    rows = torch.arange(len(prompts))
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    was_training = model.training
    model.eval()
    for at in range(count):
        # What stands behind does not matter: attention is causal.
        logits = model(tokens)[rows, starts + at - 1].float().cpu()
        if generator is None:
            found = logits.argmax(-1)
        else:
            shares = (logits / TEMPERATURE).softmax(-1)
            found = torch.multinomial(shares, 1, generator=generator)[:, 0]
        tokens[rows, starts + at] = found.to(device)
    model.train(was_training)
    ends = zip(tokens.tolist(), starts.tolist(), strict=True)
    return [row[start : start + count] for row, start in ends]


PROMPT_TOKENS = 48
PREVIEW_TOKENS = 96
SEED = 0


def show(model: Module, dataset: Dataset, device: torch.device) -> str:
    """A fixed prompt, a bar, and how the model goes on. Collective where it is sharded.

    The prompt is the start of the first validation document, continued by a seeded draw, or the
    first validation request, answered greedily. Half of a short row is prompt.
    """
    length, tokenizer = dataset.rules.length, dataset.tokenizer
    if dataset.text:
        row = dataset.text["val"].row(0)
        prompt, seed = row.inputs[: min(PROMPT_TOKENS, length // 2)], SEED
    else:
        prompt, seed = dataset.dialogues["val"].prompt(0)[-(length - length // 2) :], None
    count = min(PREVIEW_TOKENS, length - len(prompt))
    (written,) = continue_tokens(
        model, [prompt.tolist()], count, pad=tokenizer.pad, device=device, seed=seed
    )
    return f"{readable(prompt.tolist(), tokenizer)}│{readable(written, tokenizer)}"


def readable(tokens: list[int], tokenizer: Tokenizer) -> str:
    """What `tokens` say up to their end token."""
    if tokenizer.end in tokens:
        tokens = tokens[: tokens.index(tokenizer.end)]
    return legible(tokenizer.decode(tokens))


def legible(text: str) -> str:
    """`text` without what could steer a terminal."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


SHOWN = 3
PREDICTED_TOKENS = 48
COLUMNS = ("source", "prompt", "wanted", "written", "tokens right")


def predict(model: Module, dataset: Dataset, device: torch.device) -> Predictions:
    """Rows spread over the validation split, the likeliest tokens written after their prompts.

    As many forward passes as the longest text that is wanted has tokens. Collective.
    """
    samples, tokenizer = dataset.split("val"), dataset.tokenizer
    rows = [_cut(dataset, place) for place in spread_positions(len(samples), SHOWN)]
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
        return (
            row.name,
            tokens[:prompt],
            tokens[prompt : prompt + min(PREDICTED_TOKENS, length - prompt)],
        )
    rows = dataset.dialogues["val"]
    wanted = rows.answer(place)[: min(PREDICTED_TOKENS, length // 2)].tolist()
    most = min(PROMPT_TOKENS, length - len(wanted))
    return rows.row(place).name, rows.prompt(place)[-most:].tolist(), wanted


ROWS, LINES = 4, 8
"""Rows that are shown, and lines of each."""
BINS = 40
WIDTH, MARGIN, LETTER, STEP = 960, 24, 15, 20
BACK, GIVEN, LEARNT, PALE = "#ffffff", "#6b7280", "#047857", "#b6bcc6"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Run = tuple[str, str]
"""Text and its colour."""


def pictures(dataset: Dataset) -> list[Picture]:
    """A few training rows with what is learnt of them, and a histogram of lengths."""
    samples = dataset.split("train")
    chosen = sorted(set(np.linspace(0, len(samples) - 1, ROWS).astype(int).tolist()))
    rows = [samples.row(i) for i in chosen]
    kind = "documents" if dataset.text else "answers"
    told = f"{len(rows)} training rows: green is learnt, grey is given"
    return [
        Picture("rows", told, _rows(dataset, rows)),
        Picture("lengths", f"tokens of {len(dataset.lengths):,} {kind}", _lengths(dataset, kind)),
    ]


def runs(dataset: Dataset, row: Row) -> list[Run]:
    """The text of a row in pieces of one colour, such as a prompt and its answer."""
    tokens = np.append(row.inputs, row.labels[-1])
    # What stands first is given: a label is the token after its input.
    is_learnt = np.concatenate(([False], row.labels != IGNORE))
    edges = [0, *(np.flatnonzero(np.diff(is_learnt)) + 1).tolist(), len(tokens)]
    texts = (dataset.tokenizer.decode(tokens[a:b].tolist()) for a, b in pairwise(edges))
    colours = (LEARNT if is_learnt[a] else GIVEN for a in edges[:-1])
    return [(legible(text), colour) for text, colour in zip(texts, colours, strict=True)]


def _rows(dataset: Dataset, rows: Sequence[Row]) -> bytes:
    font = ImageFont.load_default(LETTER)
    laid = [_lines(runs(dataset, row), font) for row in rows]
    height = STEP * (1 + sum(len(lines) + 2 for lines in laid))
    image = Image.new("RGB", (WIDTH, height), BACK)
    pen, y = ImageDraw.Draw(image), STEP
    for row, lines in zip(rows, laid, strict=True):
        pen.text((MARGIN, y), row.name, PALE, font)
        for line in lines:
            x, y = float(MARGIN), y + STEP
            for text, colour in line:
                pen.text((x, y), text, colour, font)
                x += font.getlength(text)
        pen.line((MARGIN, y + 1.5 * STEP, WIDTH - MARGIN, y + 1.5 * STEP), PALE)
        y += 2 * STEP
    return _png(image)


def _lines(pieces: Sequence[Run], font: Font) -> list[list[Run]]:
    """`pieces` broken at line ends and at the right edge, as far as LINES go."""
    lines: list[list[Run]] = [[]]
    x = 0.0
    for text, colour in pieces:
        for letter in text.replace("\t", "    "):
            width = font.getlength(letter) if letter != "\n" else 0.0
            if letter == "\n" or x + width > WIDTH - 2 * MARGIN:
                lines, x = [*lines, []], 0.0
                if len(lines) > LINES:
                    return [*lines[: LINES - 1], [*lines[LINES - 1], (" …", GIVEN)]]
            if letter != "\n":
                lines[-1].append((letter, colour))
                x += width
    return lines


def _lengths(dataset: Dataset, kind: str) -> bytes:
    """How many texts have how many tokens: bins of equal ratio, as lengths differ by far."""
    height, font, lengths = 320, ImageFont.load_default(LETTER), dataset.lengths
    low, high = max(1, int(lengths.min())), int(lengths.max()) + 1
    edges = np.geomspace(low, high, min(BINS, high - low) + 1)
    counts = np.histogram(lengths, edges)[0]
    image = Image.new("RGB", (WIDTH, height), BACK)
    pen, base = ImageDraw.Draw(image), height - 2 * STEP
    width = (WIDTH - 2 * MARGIN) / len(counts)
    for i, count in enumerate(counts):
        top = base - (base - 2 * STEP) * count / counts.max()
        pen.rectangle((MARGIN + i * width + 1, top, MARGIN + (i + 1) * width - 1, base), LEARNT)
    pen.line((MARGIN, base, WIDTH - MARGIN, base), GIVEN)
    pen.text((MARGIN, 8), f"up to {counts.max():,} {kind}", GIVEN, font)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = MARGIN + share * (WIDTH - 2 * MARGIN)
        anchor = "la" if share == 0 else "ra" if share == 1 else "ma"
        told = f"{low * (high / low) ** share:,.0f}" + (" tokens" if share == 1 else "")
        pen.text((x, base + 8), told, GIVEN, font, anchor=anchor)
    return _png(image)


def _png(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
