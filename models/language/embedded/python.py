"""English documentation and source text that every Python installation carries."""

from __future__ import annotations

import hashlib
import os
import sysconfig
from importlib import import_module
from pathlib import Path

from models.base import DataError
from models.language.readers.records import Document

LARGEST = 64 * 1024
"""Bytes of a source file that is taken: a longer one would be a split of its own."""

SOURCE_BYTES = 3_000_000
"""Source text that is taken in all."""

_LEFT_OUT = {
    # tests and bundled wheels are not on every installation, and tables are no prose
    "test", "tests", "idlelib", "turtledemo", "ensurepip", "lib2to3", "site-packages",
    "dist-packages", "encodings", "pydoc_data", "__pycache__", "__phello__",
}  # fmt: skip


def read_documents() -> list[Document]:
    """The documentation topics and a fixed choice of standard library files, one document each.

    The same for the same Python version. Raises DataError if this Python came without them.
    """
    documents = _topics() + _sources(Path(sysconfig.get_path("stdlib")))
    if len(documents) < 3:
        raise DataError(
            "this Python came without its documentation topics and source files",
            where=f"embedded:python, {sysconfig.get_path('stdlib')}",
            allowed="an installation with the standard library as .py files",
            fix="--data PATH with text of your own, or --data embedded:commands",
        )
    return documents


def _topics() -> list[Document]:
    try:
        topics = import_module("pydoc_data.topics").topics
    except ImportError:
        return []
    return [Document(f"topics/{name}", text.strip()) for name, text in sorted(topics.items())]


def _sources(library: Path) -> list[Document]:
    """Files in an order that depends on their names alone, so that no package comes first."""
    found = {}
    for root, folders, names in os.walk(library):
        folders[:] = [name for name in folders if name not in _LEFT_OUT]
        paths = (Path(root, name) for name in names if name.endswith(".py"))
        found.update({path.relative_to(library).as_posix(): path for path in paths})
    documents, total = [], 0
    for name in sorted(found, key=lambda n: hashlib.sha256(n.encode()).digest()):
        raw = found[name].read_bytes()
        if not raw.strip() or len(raw) > LARGEST:
            continue
        total += len(raw)
        if total > SOURCE_BYTES:
            break
        text = raw.decode("utf-8", errors="replace").replace("\r\n", "\n")
        documents.append(Document(f"source/{name}", text))
    return documents
