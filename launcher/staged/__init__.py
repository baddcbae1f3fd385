"""Stages of a training one after the other, each an ordinary run in processes of its own."""
