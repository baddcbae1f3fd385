"""Built-in data: the text of the Python installation, and commands from a grammar."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sysconfig
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.random import Generator

from gearshift.models.language.readers.records import Record, Turn, document, normalized

LARGEST = 64 * 1024
"""Maximum bytes of a source file; a longer one would dominate a split."""

SOURCE_BYTES = 3_000_000
"""Total bytes of source text."""

_EXCLUDED = {
    # Tests and bundled wheels are not on every installation; tables are not prose.
    "test", "tests", "idlelib", "turtledemo", "ensurepip", "lib2to3", "site-packages",
    "dist-packages", "encodings", "pydoc_data", "__pycache__", "__phello__",
}  # fmt: skip


def read_documents() -> list[Record]:
    """Documentation topics and a fixed selection of standard library files, one document each.

    Equal for equal Python versions.
    """
    return _topics() + _sources(Path(sysconfig.get_path("stdlib")))


def _topics() -> list[Record]:
    try:
        topics = import_module("pydoc_data.topics").topics
    except ImportError:
        return []
    return [document(f"topics/{name}", text.strip()) for name, text in sorted(topics.items())]


def _sources(library: Path) -> list[Record]:
    """Source files in the order of their hashed names, which mixes packages."""
    files = {}
    for root, folders, names in os.walk(library):
        folders[:] = [name for name in folders if name not in _EXCLUDED]
        paths = (Path(root, name) for name in names if name.endswith(".py"))
        files.update({path.relative_to(library).as_posix(): path for path in paths})
    documents = []
    total = 0
    for name in sorted(files, key=lambda n: hashlib.sha256(n.encode()).digest()):
        raw = files[name].read_bytes()
        if not raw.strip() or len(raw) > LARGEST:
            continue
        total += len(raw)
        if total > SOURCE_BYTES:
            break
        text = raw.decode("utf-8", errors="replace").replace("\r\n", "\n")
        documents.append(document(f"source/{name}", text))
    return documents


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


def read_conversations() -> list[Record]:
    """4,000 fixed conversations with distinct requests, equally many per intent.

    `group` is the intent with its slot values, `label` the intent.
    """
    rng = np.random.default_rng(SEED)
    conversations: list[Record] = []
    for intent in INTENTS:
        taken: set[str] = set()
        while len(taken) < CONVERSATIONS // len(INTENTS):
            conversation = _draw(intent, len(taken) % MISSPELT == 0, rng)
            request = normalized(conversation.before[0].text)
            if request not in taken:
                taken.add(request)
                conversations.append(conversation)
    return conversations


def _draw(intent: str, is_misspelt: bool, rng: Generator) -> Record:
    values = {name: _choose(SLOTS[name], rng) for name in _SLOT.findall(intent)}
    answer = intent.format(**{name: written for name, (_, written) in values.items()})
    if is_misspelt:
        request = _choose(_CORRECT, rng).format(misspelt(answer, rng))
    else:
        request = _choose(INTENTS[intent], rng)
        request = request.format(**{name: spoken for name, (spoken, _) in values.items()})
    return Record(
        group=f"{intent} {' '.join(written for _, written in values.values())}",
        where=f"embedded:commands, {intent}",
        text=answer,
        turns=(Turn("user", request), Turn("assistant", answer)),
        at=1,
        label=intent,
    )


def _choose(options: Sequence[str] | Sequence[Value], rng: Generator):  # type: ignore[no-untyped-def]
    return options[int(rng.integers(len(options)))]


def misspelt(command: str, rng: Generator) -> str:
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


READERS = {"embedded:python": read_documents, "embedded:commands": read_conversations}
"""The built-in data by its name."""
