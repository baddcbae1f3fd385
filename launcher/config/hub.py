"""Models of the Hugging Face hub: the commit that `hf:ID` names, and its files in the cache."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

from launcher.base import environment
from launcher.base.diagnostics import PROGRAM, SettingsError
from launcher.config import errors
from launcher.config.provenance import Setting
from launcher.config.schema import PRETRAINED
from models.common.hub import HUB, folder_of
from slurm.environment import InvalidEnvironment, read_rank_environment

FORM = f"{HUB}OWNER/NAME, or with a branch, tag or commit {HUB}OWNER/NAME@REVISION"
_NAME = re.compile(r"hf:(?P<id>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[\w./-]+))?")
_TEXTS = ("*.json", "*.txt", "*.model", "*.spm", "*.jinja")
"""Configuration and tokenizer."""
_WEIGHTS = "*.safetensors"
_COPIES = ("consolidated*", "original/*", "onnx/*")
"""The same weights in the layout of other programs."""


def pin(values: dict[str, Setting]) -> list[str]:
    """Name the commit in model.pretrained, and download configuration and tokenizer.

    Gives lines to announce. Touches network and disk. Raises SettingsError.
    """
    setting = values[PRETRAINED]
    try:
        pinned = fetch(setting.value)
    except SettingsError as error:
        [diagnostic], where = error.diagnostics, errors.where(PRETRAINED, setting.origin)
        raise SettingsError([replace(diagnostic, key=PRETRAINED, where=where)]) from None
    values[PRETRAINED] = replace(setting, value=pinned)
    is_new = pinned != setting.value
    return [f"{PRETRAINED}: {pinned}, the commit of {setting.value}"] if is_new else []


@cache
def fetch(name: str, *, weights: bool = False) -> str:
    """`hf:ID@COMMIT` of `hf:ID[@REVISION]`, with the files that we read in the cache.

    A rank of torchrun or srun downloads nothing. `weights`: also them, announced on stderr.
    Touches network and disk. Raises SettingsError.
    """
    if (parts := _NAME.fullmatch(name)) is None:
        message = f"'{name}' names no model of the Hugging Face hub"
        raise SettingsError.of(message, value=name, allowed=FORM)
    if weights:
        name = fetch(name)
        parts = _NAME.fullmatch(name) or parts
    # With the network code, which takes half a second to import.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars, logging

    logging.set_verbosity_error()
    disable_progress_bars()
    is_rank = _is_rank()
    if weights and not is_rank and not _has_weights(folder_of(name)):
        print(f"{name}: downloading to the cache of the hub", file=sys.stderr, flush=True)
        if sys.stderr.isatty():
            enable_progress_bars()
    patterns = [*_TEXTS, *([_WEIGHTS] if weights else [])]
    try:
        done = snapshot_download(
            parts["id"],
            revision=parts["revision"],
            allow_patterns=patterns,
            ignore_patterns=list(_COPIES),
            local_files_only=is_rank,
        )
        if is_rank and weights and not _has_weights(Path(done)):
            raise LocalEntryNotFoundError("no weights")
    except Exception as cause:  # of requests or httpx, by its version
        raise _error(name, is_rank, cause) from None
    folder = Path(done)
    if weights and not _has_weights(folder):
        message = f"{name} has no {_WEIGHTS} among its files; other files are never loaded"
        raise SettingsError.of(message, value=name, allowed="a model with safetensors")
    return f"{HUB}{parts['id']}@{folder.name}"


def _has_weights(folder: Path) -> bool:
    return next(folder.rglob(_WEIGHTS), None) is not None


def _is_rank() -> bool:
    """Whether torchrun or srun started this process."""
    try:
        return read_rank_environment(environment.variables()) is not None
    except InvalidEnvironment:
        return True


def _error(name: str, is_rank: bool, cause: Exception) -> SettingsError:
    """An error of huggingface_hub, as that of settings."""
    from huggingface_hub import constants
    from huggingface_hub import errors as hub

    call = f"{PROGRAM} data fetch {name}"
    login = "set HF_TOKEN to a token of your account, which has access"
    rows: tuple[tuple[type[Exception], str, str | None], ...] = (
        (hub.GatedRepoError, "is gated", f"accept its terms on its page, and {login}"),
        (hub.RepositoryNotFoundError, "does not exist on the hub, or is private", login),
        (hub.RevisionNotFoundError, "has no such revision", None),
        (hub.HFValidationError, "names no model of the Hugging Face hub", None),
        (hub.LocalEntryNotFoundError, "", f"{call}  where there is a network, with the same cache"),
        (
            OSError,
            f"cannot be written to the cache of the hub: {cause}",
            "set HF_HOME to a folder with space",
        ),
        (Exception, f"cannot be downloaded: {cause}", None),
    )
    problem, fix = next((problem, fix) for kind, problem, fix in rows if isinstance(cause, kind))
    if not problem:
        status = getattr(getattr(cause.__cause__, "response", None), "status_code", None)
        reason = f"{constants.ENDPOINT} " + (f"responds {status}" if status else "cannot be reached")
        if is_rank or constants.HF_HUB_OFFLINE:
            reason = "ranks download nothing" if is_rank else "HF_HUB_OFFLINE forbids to download it"
        problem = f"is not in the cache of the hub ({constants.HF_HUB_CACHE}), and {reason}"
    return SettingsError.of(f"{name} {problem}", value=name, allowed=FORM, fix=fix)
