"""stages.json and result.json of a pipeline: its runs, and how they ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launcher.base import exit_codes
from launcher.run_folder import run_folder
from launcher.run_folder.reader import RunReader
from training.logging.strict_json import encode, encode_bytes
from training.storage import atomic_write, storage_errors

_STATUSES = {exit_codes.DONE: "completed", exit_codes.FAILURE: "failed", exit_codes.INVALID_INPUT: "failed"}
_KEPT = (*("status", "steps", "parameters", "best", "peak_memory_bytes"), *("wall_s", "time_split"))
"""Keys of the result of each stage that the pipeline's result repeats."""


def child(number: int, name: str) -> str:
    """The folder name of a stage; `number` counts from 1."""
    return f"{number}-{name}"


def save(folder: Path, stages: Sequence[str]) -> None:
    """Write the stages of the pipeline in `folder`. Raises OSError. Touches the disk."""
    content = [{"name": name, "folder": child(n, name)} for n, name in enumerate(stages, start=1)]
    run_folder.write_new(folder / run_folder.STAGES, encode({"stages": content}, indent=2) + "\n")


def is_completed(folder: Path) -> bool:
    """Whether the run of a stage is completed. Reads the disk."""
    result = RunReader(folder).result()
    return result is not None and result.get("status") == "completed"


def write(folder: Path, stages: Mapping[str, Path], codes: Mapping[str, int]) -> dict[str, Any]:
    """Write and give the result of the pipeline in `folder`, as `summarize`. Raises StorageError."""
    result, path = summarize(stages, codes), folder / run_folder.RESULT
    with storage_errors(path):
        atomic_write(path, encode_bytes(result, indent=2) + b"\n")
    return result


def summarize(folders: Mapping[str, Path], codes: Mapping[str, int] | None = None) -> dict[str, Any]:
    """The result of a pipeline, from those in the `folders` of its stages. Reads the disk.

    `codes` holds the exit codes of this start.
    """
    stages, results = [], []
    for name, folder in folders.items():
        result, code = RunReader(folder).result() or {}, (codes or {}).get(name)
        status = _STATUSES.get(code, "stopped") if code is not None else result.get("status", "waiting")
        if status == "completed":
            code = exit_codes.DONE
        facts = {key: result.get(key) for key in _KEPT}
        stages.append({"name": name, "folder": folder.name, **facts, "status": status, "exit_code": code})
        results += [result] if result else []
    last: Mapping[str, Any] = results[-1] if results else {}
    peaks = _known(results, "peak_memory_bytes")
    kinds = list(dict.fromkeys(kind for peak in peaks for kind in peak))
    statuses = [stage["status"] for stage in stages]
    status = "failed" if "failed" in statuses else "stopped"
    return {
        "status": "completed" if set(statuses) == {"completed"} else status,
        **{key: sum(_known(results, key)) for key in ("steps", "epochs", "wall_s")},
        **{key: last.get(key) for key in ("model", "mode", "engine", "world_size")},
        "parameters": max(_known(results, "parameters"), default=None),
        "best": last.get("best"),
        # The largest peak of each kind of memory over stages; None: not measured.
        "peak_memory_bytes": {kind: max(_known(peaks, kind), default=None) for kind in kinds},
        "samples_per_s": last.get("samples_per_s"),
        "stages": stages,
    }


def _known(results: Sequence[Mapping[str, Any]], key: str) -> list[Any]:
    return [result[key] for result in results if result.get(key) is not None]
