"""Reads a corpus from files and extracts parts of it for tests."""

import pytest

from gearshift.models.base import DataError
from gearshift.models.language.readers.file_corpus import read_corpus


def read(path, on_bad="stop", answers=None):
    return read_corpus(path, answers, on_bad)


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def exchanges(corpus):
    return list(corpus.records())


def documents(corpus):
    """Group and text of each document."""
    return [(document.group, document.text) for document in corpus.records()]


def texts(corpus):
    return [text for _, text in documents(corpus)]


def groups(corpus):
    return list(corpus.groups)


def pairs(corpus):
    return [(e.before[-1].text, e.text) for e in exchanges(corpus)]


def error_text(path, on_bad="stop", answers=None):
    with pytest.raises(DataError) as error:
        read(path, on_bad, answers)
    return str(error.value).replace(str(path), "DATA").replace(str(path.parent), "FOLDER")
