"""Built-in data: requests for commands, from a grammar."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.random import Generator

from gearshift.models.language.readers.records import Record, Turn, normalized

CONVERSATIONS = 4000
MISSPELT = 10
"""One in this many requests asks to correct a command."""

SEED = 2024
"""Fixed: the seed of a run changes the split and the order only."""

_GRAMMAR = json.loads(Path(__file__).with_name("grammar.json").read_text(encoding="utf-8"))
INTENTS: dict[str, list[str]] = _GRAMMAR["commands"]
"""Command with slots, and six requests for it."""
SLOTS: dict[str, list[str]] = _GRAMMAR["slots"]
"""Values of each slot: `request=command`, or one for both.

Equal words with two meanings make a request ambiguous by design.
"""

_SLOT = re.compile(r"\{(\w+)\}")
_CORRECT = (
    "fix {}",
    "correct {}",
    "typo in {}",
    "what should {} be",
    "{} does not work",
    "repair {}",
)


def read_conversations() -> list[Record]:
    """4,000 fixed conversations with distinct requests, equally many per intent.

    `group` is the intent with its slot values, `label` the intent.
    """
    rng = np.random.default_rng(SEED)
    conversations: list[Record] = []
    for intent in INTENTS:
        requests: set[str] = set()
        while len(requests) < CONVERSATIONS // len(INTENTS):
            is_misspelt = len(requests) % MISSPELT == 0
            conversation = _draw(intent, is_misspelt, rng)
            request = normalized(conversation.before[0].text)
            if request not in requests:
                requests.add(request)
                conversations.append(conversation)
    return conversations


def _draw(intent: str, is_misspelt: bool, rng: Generator) -> Record:
    spoken = {}
    written = {}
    for slot in _SLOT.findall(intent):
        value, _, command = _choose(SLOTS[slot], rng).partition("=")
        spoken[slot] = value
        written[slot] = command or value
    answer = intent.format(**written)
    if is_misspelt:
        request = _choose(_CORRECT, rng).format(misspelt(answer, rng))
    else:
        request = _choose(INTENTS[intent], rng).format(**spoken)
    return Record(
        group=f"{intent} {' '.join(written.values())}",
        where=f"embedded:commands, {intent}",
        text=answer,
        turns=(Turn("user", request), Turn("assistant", answer)),
        at=1,
        label=intent,
    )


def _choose(options: Sequence[str], rng: Generator) -> str:
    return options[int(rng.integers(len(options)))]


def misspelt(command: str, rng: Generator) -> str:
    """`command` with one typo in its first word of two or more letters; never `command` itself."""
    words = command.split(" ")
    at = next(i for i, word in enumerate(words) if len(word) > 1 and word.isalpha())
    word = words[at]
    while words[at] == word:
        letters = list(word)
        i = int(rng.integers(len(letters) - 1))
        kind = int(rng.integers(3))
        if kind == 0:
            letters[i], letters[i + 1] = letters[i + 1], letters[i]
        elif kind == 1:
            letters.insert(i, letters[i])
        else:
            del letters[i + 1]
        words[at] = "".join(letters)
    return " ".join(words)
