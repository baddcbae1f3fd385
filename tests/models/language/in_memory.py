"""Samples from records in memory."""

import numpy as np

from models.language.encoded import encode
from models.language.readers.corpus import from_records
from models.language.readers.records import Conversation, Document, Turn
from models.language.rows import Dialogues, TokenWindows, true_pairing
from models.language.tokenizer import ByteTokenizer

TOKENIZER = ByteTokenizer()


def windows(texts, length, **settings):
    """Rows of documents d0, d1, …"""
    corpus = from_records("texts", [Document(f"d{i}", text) for i, text in enumerate(texts)])
    numbers = np.arange(len(corpus))
    encoded = encode(corpus, TOKENIZER)
    return TokenWindows(encoded, corpus.names, numbers, TOKENIZER, length, **settings)


def conversation(request="list all", answer="ls -a", history=()):
    """A conversation that ends in `answer`."""
    turns = (*history, Turn("user", request), Turn("assistant", answer))
    return Conversation(turns, "x.csv:2", "g", "l")


def dialogues(conversations, length, on_bad="stop"):
    """Rows of the exchanges of all conversations."""
    corpus = from_records("pairs", conversations)
    pairing = true_pairing(np.arange(len(corpus)))
    return Dialogues(encode(corpus, TOKENIZER), corpus.names, pairing, length, on_bad)
