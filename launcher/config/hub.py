"""Models of the Hugging Face hub: the commit that `hf:ID` names, and its files in the cache."""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path

from gearshift.launcher.base import environment
from gearshift.launcher.base.diagnostics import PROGRAM, SettingsError
from gearshift.models.catalog import HUB, folder_of
from gearshift.slurm.environment import InvalidEnvironment
from gearshift.slurm.variables import read_rank_environment

FORM = f"{HUB}OWNER/NAME, or with a branch, tag or commit {HUB}OWNER/NAME@REVISION"
_NAME = re.compile(r"hf:(?P<id>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[\w./-]+))?")
_WEIGHTS = "*.safetensors"
_TEXTS = ("*.json", "*.txt", "*.model", "*.spm", "*.jinja")
"""Configuration and tokenizer."""
_COPIES = ["consolidated*", "original/*", "onnx/*"]
"""The same weights in the layout of other programs."""
_WHERE = "type it where there is a network, with the same cache"


@cache
def fetch(name: str, *, weights: bool = False) -> str:
    """`hf:ID@COMMIT` of `hf:ID[@REVISION]`, with the files that we read in the cache.

    A rank of torchrun or srun downloads nothing. `weights`: also them, announced on stderr.
    Touches network and disk. Raises SettingsError.
    """
    if (parts := _NAME.fullmatch(name)) is None:
        message = f"'{name}' names no model of the Hugging Face hub"
        raise SettingsError.of(message, value=name, allowed=FORM)
    # With the network code, which takes half a second to import.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars, logging

    try:
        is_rank = read_rank_environment(environment.variables()) is not None
    except InvalidEnvironment:
        is_rank = True
    logging.set_verbosity_error()
    disable_progress_bars()
    if weights and not is_rank and not any(folder_of(name).rglob(_WEIGHTS)):
        print(f"{name}: downloading to the cache of the hub", file=sys.stderr, flush=True)
        if sys.stderr.isatty():
            enable_progress_bars()
    call = f"{PROGRAM} data fetch {name}"
    try:
        done = snapshot_download(
            parts["id"],
            revision=parts["revision"],
            allow_patterns=[*_TEXTS, *[_WEIGHTS] * weights],
            ignore_patterns=_COPIES,
            local_files_only=is_rank,
        )
    except Exception as error:  # of requests or httpx, by its version
        message = f"{name} cannot be downloaded: {' '.join(str(error).split())}"
        fix = None
        hint = None
        if isinstance(error, LocalEntryNotFoundError):
            fix = call
            hint = _WHERE
        elif isinstance(error, RepositoryNotFoundError):
            hint = "set HF_TOKEN to a token of your account, which has access"
        raise SettingsError.of(message, value=name, allowed=FORM, fix=fix, hint=hint) from None
    folder = Path(done)
    if weights and not any(folder.rglob(_WEIGHTS)):
        message = f"{name} has no {_WEIGHTS} in {folder}; other files are never loaded"
        fix = call if is_rank else None
        raise SettingsError.of(message, value=name, allowed="a model with safetensors", fix=fix)
    return f"{HUB}{parts['id']}@{folder.name}"
