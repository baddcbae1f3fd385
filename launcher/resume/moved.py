"""The new folder of a pretrained model that has moved since its run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.config.options import OUTPUT, Option
from launcher.config.schema import PRETRAINED
from training.checkpoint import base_weights

if TYPE_CHECKING:
    from training.checkpoint.reader import Checkpoint

MOVED = Option(
    "--set",
    OUTPUT,
    f"{PRETRAINED}=DIR",
    sentence="New folder of the pretrained model of the run, if it has moved; its weights must be "
    "the same.",
    repeats=True,
)
FORM = f"--set {PRETRAINED}=DIR"


def moved_to(sets: Sequence[str]) -> str | None:
    """The folder in the arguments of `--set`; None: there is none. Raises SettingsError."""
    if wrong := list(_misplaced(sets)):
        raise SettingsError(wrong)
    return sets[-1].partition("=")[2] if sets else None


def _misplaced(sets: Sequence[str]) -> Iterator[Diagnostic]:
    for text in sets:
        key, _, value = text.partition("=")
        if key.strip() != PRETRAINED or not value:
            message, where = f"'{key}' cannot be set here", f"the command line: --set {text}"
            yield Diagnostic(message, key=key, value=text, where=where, allowed=FORM)


def check(folder: str, checkpoint: Checkpoint, *, is_new: bool) -> None:
    """Check that `folder` exists, and a new one has the weights that the checkpoint knows.

    Reads each byte of those. Raises SettingsError.
    """
    path, step = Path(folder).expanduser(), checkpoint.manifest.step
    where = f"the command line: --set {PRETRAINED}={folder}" if is_new else str(checkpoint.folder)
    if not path.is_dir():
        message = f"{PRETRAINED} '{folder}' is not a folder ({path.absolute()})"
        parts = {"allowed": "its folder, also a new one", "fix": f"{FORM}  if it has moved"}
        raise SettingsError.of(message, value=folder, where=where, **parts)
    if not is_new:
        return
    known = checkpoint.facts.get(base_weights.FACT)
    if known is None:
        message = f"the checkpoint of step {step} has no checksum of {PRETRAINED}"
        raise SettingsError.of(message, value=folder, where=where, allowed="the same path")
    if base_weights.digest(path) != known["sha256"]:
        raise SettingsError.of(
            f"the weights in '{folder}' are not those that the checkpoint of step {step} was "
            "trained on",
            value=folder,
            where=where,
            allowed=f"the weights with sha256 {known['sha256']}, once in {known['folder']}",
        )
