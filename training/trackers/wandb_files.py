"""W&B's offline files in a run folder: which there are, their last step, and how they are sent."""

from __future__ import annotations

import json
import shlex
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

# A .wandb file: blocks of 32 KiB, the first one after a header of 7 bytes; each block has records
# with a checksum, a length and a type. Source: LevelDB, doc/log_format.md, and W&B's transaction
# log.
_BLOCK, _RECORD_HEAD = 32768, struct.Struct("<IHB")
_FILE_HEAD = 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_SYNC_S = 120.0


def files(folder: Path, run_id: str) -> list[Path]:
    """The .wandb files of the run below `folder`/wandb, oldest first. Touches disk."""
    paths = (folder / "wandb").glob(f"*run-*-{run_id}/run-{run_id}.wandb")
    return sorted(paths, key=lambda path: path.parent.name.removeprefix("offline-"))


def is_offline(path: Path) -> bool:
    """Whether nothing of this file was sent while it was written."""
    return path.parent.name.startswith("offline-")


def unsent(paths: Sequence[Path]) -> list[Path]:
    """The files that are not known to be on the server. Touches disk."""
    return [path for path in paths if not _marker(path).exists()]


def mark_sent(paths: Sequence[Path]) -> None:
    """Let `wandb sync` skip these files. Touches disk; raises OSError."""
    for path in paths:
        _marker(path).touch()


def last_step(paths: Sequence[Path]) -> int:
    """The last step in these files; 0: they have no rows. Touches disk."""
    return max((row["_step"] for path in paths for row in rows(path)), default=0)


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The complete rows of the history in a .wandb file. Imports W&B's protocol."""
    import wandb.proto.wandb_internal_pb2 as generated

    protocol: Any = generated  # its classes are made when it is imported

    for data in _records(path.read_bytes()):
        record = protocol.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            yield {
                "/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items
            }


def sync_command(paths: Sequence[Path], own_command: str) -> str:
    """The command that sends these files. Imports W&B.

    It is `own_command` unless all are offline: `wandb sync` would send once more what the server
    has of a file that was written online.
    """
    if not all(map(is_offline, paths)):
        return own_command
    return shlex.join(["wandb", *_sync_arguments(paths)])


def sync(paths: Sequence[Path]) -> None:
    """Send offline files, with tables and pictures, for at most two minutes. Uses the network.

    Sends nothing unless all files are offline: the order of rows could break.
    """
    if paths and all(map(is_offline, paths)):
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(
                [sys.executable, "-m", "wandb", *_sync_arguments(paths)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_SYNC_S,
            )


def _sync_arguments(paths: Sequence[Path]) -> list[str]:
    from wandb.cli.cli import cli

    # Older versions need --append for several files of one run; newer ones detect it.
    has_append = any(option.name == "append" for option in cli.commands["sync"].params)
    more = ["--append"] if has_append and len(paths) > 1 else []
    return ["sync", *more, *(str(path.parent) for path in paths)]


def _records(data: bytes) -> Iterator[bytes]:
    """Each record of a file, without a last one that is cut off."""
    at, parts = _FILE_HEAD, b""
    while at + _RECORD_HEAD.size <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _RECORD_HEAD.size:
            at += left
            continue
        _, length, kind = _RECORD_HEAD.unpack_from(data, at)
        at += _RECORD_HEAD.size
        part = data[at : at + length]
        if len(part) < length or kind not in (_FULL, _FIRST, _MIDDLE, _LAST):
            return
        at += length
        parts = part if kind in (_FULL, _FIRST) else parts + part
        if kind in (_FULL, _LAST):
            yield parts


def _marker(path: Path) -> Path:
    return path.with_name(f"{path.name}.synced")
