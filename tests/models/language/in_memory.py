"""Samples from records in memory."""

from dataclasses import replace

import numpy as np

from gearshift.models.language.dialogues import Dialogues
from gearshift.models.language.encoded import encode
from gearshift.models.language.readers.corpus import from_records
from gearshift.models.language.readers.records import Record, Turn, exchanges
from gearshift.models.language.rows import Rules, TokenWindows
from gearshift.models.language.tokenizer import ByteTokenizer

TOKENIZER = ByteTokenizer()


def rules(length, on_bad="stop", single_document=False, control="real"):
    return Rules(length, on_bad, control, 0, single_document)


def windows(texts, length, **settings):
    """Rows of documents d0, d1, …"""
    corpus = from_records("texts", [Record(f"d{i}", f"d{i}", text) for i, text in enumerate(texts)])
    numbers, encoded = np.arange(len(corpus)), encode(corpus, TOKENIZER)
    return TokenWindows(encoded, corpus, numbers, rules(length, **settings), 0)


def conversation(request="list all", answer="ls -a", history=(), label="l"):
    """The records of a conversation that ends in `answer`."""
    turns = (*history, Turn("user", request), Turn("assistant", answer))
    return labeled(exchanges(turns, "x.csv:2"), label)


def labeled(records, label):
    """Of one group, and one kind of request."""
    return [replace(record, group="g", label=label) for record in records]


def dialogues(conversations, length, side=0, tokenizer=TOKENIZER, **settings):
    """Rows of all conversations."""
    corpus = from_records("pairs", [record for records in conversations for record in records])
    numbers, encoded = np.arange(len(corpus)), encode(corpus, tokenizer)
    return Dialogues(encoded, corpus, numbers, rules(length, **settings), side)
