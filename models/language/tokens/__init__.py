"""Tokenizers, the text form of a conversation, and the tokens of a corpus."""
