"""Samples from records in memory."""

import numpy as np

from models.language.encoded import encode
from models.language.readers.corpus import from_records
from models.language.readers.records import Record, Turn, exchanges
from models.language.rows import Dialogues, Pairing, Rules, TokenWindows
from models.language.tokenizer import ByteTokenizer

TOKENIZER = ByteTokenizer()


def rules(length, on_bad="stop", single_document=False):
    return Rules(length, on_bad, "real", 0, single_document)


def windows(texts, length, noise=None, **settings):
    """Rows of documents d0, d1, …"""
    corpus = from_records("texts", [Record(f"d{i}", f"d{i}", text) for i, text in enumerate(texts)])
    numbers, encoded = np.arange(len(corpus)), encode(corpus, TOKENIZER)
    return TokenWindows(encoded, corpus.names, numbers, TOKENIZER, rules(length, **settings), noise)


def conversation(request="list all", answer="ls -a", history=()):
    """The records of a conversation that ends in `answer`."""
    turns = (*history, Turn("user", request), Turn("assistant", answer))
    return exchanges(turns, "x.csv:2", "g", "l")


def dialogues(conversations, length, on_bad="stop"):
    """Rows of the exchanges of all conversations."""
    corpus = from_records("pairs", [record for records in conversations for record in records])
    numbers, encoded = np.arange(len(corpus)), encode(corpus, TOKENIZER)
    pairing = Pairing(numbers, numbers)
    return Dialogues(encoded, corpus.names, corpus.labels, pairing, rules(length, on_bad))
