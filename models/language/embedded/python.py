"""embedded:python: documentation and source text of the Python installation."""

from __future__ import annotations

import hashlib
import os
import sysconfig
from importlib import import_module
from pathlib import Path

from models.base import DataError
from models.language.readers.records import Document

LARGEST = 64 * 1024
"""Maximum bytes of a source file; a longer one would dominate a split."""

SOURCE_BYTES = 3_000_000
"""Total bytes of source text."""

_EXCLUDED = {
    # Tests and bundled wheels are not on every installation; tables are not prose.
    "test", "tests", "idlelib", "turtledemo", "ensurepip", "lib2to3", "site-packages",
    "dist-packages", "encodings", "pydoc_data", "__pycache__", "__phello__",
}  # fmt: skip


def read_documents() -> list[Document]:
    """Documentation topics and a fixed selection of standard library files, one document each.

    Equal for equal Python versions. Raises DataError if this Python lacks them.
    """
    documents = _topics() + _sources(Path(sysconfig.get_path("stdlib")))
    if len(documents) < 3:
        raise DataError(
            "this Python installation has no documentation topics and source files",
            where=f"data.path embedded:python, {sysconfig.get_path('stdlib')}",
            allowed="an installation with the standard library as .py files",
            fix="--data PATH  with your own text, or  --data embedded:commands",
        )
    return documents


def _topics() -> list[Document]:
    try:
        topics = import_module("pydoc_data.topics").topics
    except ImportError:
        return []
    return [Document(f"topics/{name}", text.strip()) for name, text in sorted(topics.items())]


def _sources(library: Path) -> list[Document]:
    """Source files in the order of their hashed names, which mixes packages."""
    found = {}
    for root, folders, names in os.walk(library):
        folders[:] = [name for name in folders if name not in _EXCLUDED]
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
