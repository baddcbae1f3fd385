"""embedded:commands: requests in English with shell commands as answers, from a grammar."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.language.readers.index import normalized
from models.language.readers.records import Conversation, Turn

CONVERSATIONS = 4000
MISSPELT = 10
"""One in this many requests asks to correct a command."""

SEED = 2024
"""FixedDraws: the seed of a run changes the split and the order only."""

_GRAMMAR = json.loads(Path(__file__).with_name("grammar.json").read_text(encoding="utf-8"))
INTENTS: dict[str, list[str]] = _GRAMMAR["commands"]
"""Command with slots, and six requests for it."""
Value = tuple[str, str]
"""Value in the request, value in the command; in the file `request=command`, or one for both."""
SLOTS: dict[str, list[Value]] = {
    name: [(spoken, written or spoken) for spoken, _, written in (v.partition("=") for v in values)]
    for name, values in _GRAMMAR["slots"].items()
}
"""Values of each slot. Equal words with two meanings make a request ambiguous by design."""

_SLOT = re.compile(r"\{(\w+)\}")
_CORRECT = (
    "fix {}", "correct {}", "typo in {}", "what should {} be", "{} does not work", "repair {}",
)  # fmt: skip


def read_conversations() -> list[Conversation]:
    """4,000 fixed conversations with distinct requests, equally many per intent.

    `group` is the intent with its slot values, `label` the intent.
    """
    rng = np.random.default_rng(SEED)
    conversations: list[Conversation] = []
    for intent in INTENTS:
        taken: set[str] = set()
        while len(taken) < CONVERSATIONS // len(INTENTS):
            conversation = _draw(intent, len(taken) % MISSPELT == 0, rng)
            request = normalized(conversation.turns[0].text)
            if request not in taken:
                taken.add(request)
                conversations.append(conversation)
    return conversations


def _draw(intent: str, is_misspelt: bool, rng: np.random.Generator) -> Conversation:
    values = {name: _choose(SLOTS[name], rng) for name in _SLOT.findall(intent)}
    answer = intent.format(**{name: written for name, (_, written) in values.items()})
    if is_misspelt:
        request = _choose(_CORRECT, rng).format(misspelt(answer, rng))
    else:
        request = _choose(INTENTS[intent], rng)
        request = request.format(**{name: spoken for name, (spoken, _) in values.items()})
    return Conversation(
        (Turn("user", request), Turn("assistant", answer)),
        where=f"embedded:commands, {intent}",
        group=f"{intent} {' '.join(written for _, written in values.values())}",
        label=intent,
    )


def _choose(options: Sequence[str] | Sequence[Value], rng: np.random.Generator):  # type: ignore[no-untyped-def]
    return options[int(rng.integers(len(options)))]


def misspelt(command: str, rng: np.random.Generator) -> str:
    """`command` with one typo in its first word of two or more letters; never `command` itself."""
    words = command.split(" ")
    at = next(i for i, word in enumerate(words) if len(word) > 1 and word.isalpha())
    while True:
        letters = list(words[at])
        i = int(rng.integers(len(letters) - 1))
        kind = int(rng.integers(3))
        if kind == 0:
            letters[i], letters[i + 1] = letters[i + 1], letters[i]
        elif kind == 1:
            letters.insert(i, letters[i])
        else:
            del letters[i + 1]
        typo = "".join(letters)
        if typo != words[at]:
            return " ".join((*words[:at], typo, *words[at + 1 :]))
