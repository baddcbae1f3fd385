"""Imports DeepSpeed, if it is installed, for processes that are forked from this one."""

from contextlib import suppress

from engines.base import EngineError
from engines.zero import library

with suppress(EngineError):
    library.load("cpu")
