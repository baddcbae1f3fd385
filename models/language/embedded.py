"""Built-in data: the text of the Python installation."""

from __future__ import annotations

import hashlib
import os
import sysconfig
from importlib import import_module
from pathlib import Path

from gearshift.models.language.readers.records import Record, document

LARGEST = 64 * 1024
"""Maximum bytes of a source file; a longer one would dominate a split."""

SOURCE_BYTES = 3_000_000
"""Total bytes of source text."""

_EXCLUDED = {
    # Tests and bundled wheels are not on every installation; tables are not prose.
    "test",
    "tests",
    "idlelib",
    "turtledemo",
    "ensurepip",
    "lib2to3",
    "site-packages",
    "dist-packages",
    "encodings",
    "pydoc_data",
    "__pycache__",
    "__phello__",
}


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
    files = []
    for root, folders, names in os.walk(library):
        folders[:] = [name for name in folders if name not in _EXCLUDED]
        relative = Path(root).relative_to(library)
        files += [(relative / name).as_posix() for name in names if name.endswith(".py")]
    documents = []
    total = 0
    for name in sorted(files, key=lambda name: hashlib.sha256(name.encode()).digest()):
        raw = (library / name).read_bytes()
        if not raw.strip() or len(raw) > LARGEST:
            continue
        total += len(raw)
        if total > SOURCE_BYTES:
            break
        text = raw.decode("utf-8", errors="replace").replace("\r\n", "\n")
        documents.append(document(f"source/{name}", text))
    return documents
