"""The Hugging Face hub: the commit that `hf:ID` names, its files in the cache, and its errors."""

from __future__ import annotations

import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Literal, TypeVar

from gearshift.launcher.base import environment
from gearshift.launcher.base.diagnostics import PROGRAM, SettingsError, nearest_match
from gearshift.launcher.config import hub_border, other_tools
from gearshift.models.catalog import HUB, folder_of
from gearshift.slurm.environment import InvalidEnvironment
from gearshift.slurm.variables import read_rank_environment

Answer = TypeVar("Answer")
Kind = Literal["model", "dataset"]
FORM = f"{HUB}OWNER/NAME, or with a branch, tag or commit {HUB}OWNER/NAME@REVISION"
DATA_FORM = f"{HUB}OWNER/NAME, with @REVISION, :CONFIG and :SPLIT if needed"
_NAME = re.compile(
    r"hf:(?P<id>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>(?![\w./-]*\.\.)\w[\w./-]*))?"
    r"(?P<parts>(?::\w[\w.+ -]*){0,2})"
)
_WEIGHTS = "*.safetensors"
_TEXTS = ("*.json", "*.txt", "*.model", "*.spm", "*.jinja")
"""Configuration and tokenizer."""
_COPIES = ["consolidated*", "original/*", "onnx/*"]
"""The same weights in the layout of other programs."""
_LOGIN = "hf auth login"
_LIMITED = 429
_WAITS_S = (1, 4, 15)
"""Pauses before a request is repeated that the rate limit refused, unless the hub says how long."""
_LONGEST_WAIT_S = 60


@cache
def fetch(name: str, *, weights: bool = False) -> str:
    """`hf:ID@COMMIT` of `hf:ID[@REVISION]`, with the files that we read in the cache.

    A rank of torchrun or srun downloads nothing. `weights`: also them, announced on stderr.
    Touches network and disk. Raises SettingsError.
    """
    model = repository(name, "model")
    is_new = weights and not model.is_local and not any(folder_of(name).rglob(_WEIGHTS))
    folder = model.snapshot([*_TEXTS, *[_WEIGHTS] * weights], is_announced=is_new)
    if weights and not any(folder.rglob(_WEIGHTS)):
        message = f"{name} has no {_WEIGHTS} in {folder}; other files are never loaded"
        fix = model.call if model.is_local else None
        raise SettingsError.of(message, value=name, allowed="a model with safetensors", fix=fix)
    return f"{HUB}{model.id}@{folder.name}"


def is_rank() -> bool:
    """Whether torchrun or srun started this process, which then downloads nothing."""
    try:
        return read_rank_environment(environment.variables()) is not None
    except InvalidEnvironment:
        return True


@dataclass(frozen=True)
class Repository:
    """A repository of the hub. Its methods touch the network, and raise SettingsError."""

    name: str
    """As typed."""
    id: str
    """OWNER/NAME."""
    revision: str | None
    kind: Kind
    is_local: bool
    """Whether only the cache is used."""
    call: str
    """The command that downloads what the cache lacks."""

    def snapshot(self, patterns: Sequence[str], *, is_announced: bool = False) -> Path:
        """The folder of a commit in the cache, named for it, with the files of `patterns`.

        A connection that breaks is continued where it broke. `is_announced`: on stderr.
        """
        # With the network code, which takes half a second to import.
        from huggingface_hub import constants, snapshot_download
        from huggingface_hub.utils import disable_progress_bars, enable_progress_bars, logging

        logging.set_verbosity_error()
        disable_progress_bars()
        if is_announced:
            print(f"{self.name}: downloading to the cache of the hub", file=sys.stderr, flush=True)
            if sys.stderr.isatty():
                enable_progress_bars()
        folder = self.ask(
            lambda: snapshot_download(
                self.id,
                repo_type=self.kind,
                revision=self.revision,
                allow_patterns=[*patterns],
                ignore_patterns=_COPIES if self.kind == "model" else None,
                local_files_only=self.is_local,
            )
        )
        path = Path(folder)
        self.ask(partial(hub_border.check_snapshot, path, Path(constants.HF_HUB_CACHE)))
        return path

    def ask(self, request: Callable[[], Answer], waits: Sequence[int] = _WAITS_S) -> Answer:
        """What the hub answers to `request`, which is repeated at its rate limit."""
        hub_border.check_all_requests()
        try:
            return request()
        except Exception as error:  # of requests or httpx, by its version
            response = getattr(error.__cause__ or error, "response", None)
            is_limited = response is not None and response.status_code == _LIMITED
            if response is not None and is_limited and waits:
                text = response.headers.get("Retry-After", "")
                time.sleep(min(int(text), _LONGEST_WAIT_S) if text.isdigit() else waits[0])
                return self.ask(request, waits[1:])
            raise self._error(error, is_limited) from None

    def absent(self, cause: str = "") -> SettingsError:
        """The error for files that the cache lacks, and that are not downloaded."""
        return SettingsError.of(
            f"{self.name} is not in the cache of the hub{cause}",
            value=self.name,
            fix=self.call,
            hint="where there is a network, with the same cache",
        )

    def _error(self, error: Exception, is_limited: bool) -> SettingsError:
        from huggingface_hub import errors

        text = " ".join(str(error).split())
        fix = None
        suggestion = None
        hint = "the same command continues with the files that are left"
        if is_limited or isinstance(error, errors.RepositoryNotFoundError):
            suggestion = None if is_limited else _nearest_name(self.id, self.kind)
            fix = suggestion or _LOGIN
            hint = (
                f"check how the name is spelled, and ask for access on its page; {_LOGIN}, or "
                "HF_TOKEN with a token, opens what is private, and has a higher limit of requests"
            )
        elif isinstance(error, errors.LocalEntryNotFoundError):
            return self.absent("" if self.is_local else f", and cannot be downloaded: {text}")
        elif isinstance(error, hub_border.UnsafeHub):
            hint = "HF_ENDPOINT names the hub; without it, it is https://huggingface.co"
        elif isinstance(error, errors.RevisionNotFoundError):
            fix = suggestion = f"{HUB}{self.id}"
            hint = "without a revision it is the newest commit"
        return SettingsError.of(
            f"{self.name} cannot be downloaded: {text}",
            value=self.name,
            did_you_mean=suggestion,
            fix=fix,
            replaces=(self.name,) if suggestion else (),
            hint=hint,
        )


def _nearest_name(name: str, kind: Kind) -> str | None:
    """What `name` misspells: a folder, or `hf:OWNER/NAME` of a common or cached repository."""
    from huggingface_hub.constants import HF_HUB_CACHE

    beside = nearest_match(name, map(str, Path(name).parent.glob("*")))
    if beside:  # a folder here
        return beside
    known = list(other_tools.table()["repositories"][kind])
    for folder in Path(HF_HUB_CACHE).glob(f"{kind}s--*--*"):
        known.append(folder.name.removeprefix(f"{kind}s--").replace("--", "/"))
    similar = nearest_match(name, known)
    return HUB + similar if similar and similar != name else None


def repository(name: str, kind: Kind, *, may_download: bool = True) -> Repository:
    """The repository that `name` names; only its cache without `may_download` or in a rank.

    Raises SettingsError.
    """
    form = FORM
    argument = name
    if kind == "dataset":
        form = DATA_FORM
        argument = f"--set {shlex.quote(f'data.path={name}')}"
    match = _NAME.fullmatch(name)
    if match is None or (match["parts"] and kind == "model"):
        message = f"'{name}' names no {kind} of the Hugging Face hub"
        raise SettingsError.of(message, value=name, allowed=form)
    return Repository(
        name=name,
        id=match["id"],
        revision=match["revision"],
        kind=kind,
        is_local=not may_download or is_rank(),
        call=f"{PROGRAM} data fetch {argument}",
    )
