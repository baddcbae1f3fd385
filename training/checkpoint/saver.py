"""Writes checkpoints: every rank its share, whole on disk under their name or not there at all."""

from __future__ import annotations

import json
import platform
import shutil
import struct
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from engines.base import State, World
from training.checkpoint import manifest, retention, shard
from training.checkpoint.blocks import BlockWriter
from training.checkpoint.manifest import CheckpointError, File, Manifest
from training.console.quantities import size
from training.records.line_file import RunFolderError
from training.records.plain_json import encode_bytes

_LIBRARIES = ("torch", "numpy", "deepspeed", "fairscale", "transformers")
# What the JSON files may need, and a margin for a file system that counts whole blocks.
_SPARE_BYTES = 16 * 2**20
_DIGEST = struct.Struct("<4q")  # sha256 in numbers that ranks can add

T = TypeVar("T")


@dataclass(frozen=True)
class _Moment:
    """What is saved beside the engine's state."""

    step: int
    facts: Mapping[str, Any]
    periodic: bool


class Saver:
    """Writes checkpoints into the run folder `run`. Collective; touches disk.

    What fails on one rank fails on all, as CheckpointError, and leaves no checkpoint behind; the
    earlier ones stay as they were. Kept are the newest `keep_last` periodic checkpoints, the best
    and the last.
    """

    def __init__(self, run: Path, world: World, engine: str, keep_last: int) -> None:
        self._run = run
        self._folder = run / retention.CHECKPOINTS
        self._world = world
        self._engine = engine
        self._keep_last = keep_last
        self._saved: tuple[int, bytes] | None = None
        if world.rank == 0:
            retention.sweep(self._folder)

    def save(
        self, step: int, state: State, facts: Mapping[str, Any], is_best: bool, periodic: bool
    ) -> Path:
        """Write `state` and `facts`, and give the checkpoint's folder.

        `facts` is JSON of the loop's own, the same on every rank, with the number of "samples" seen
        among it. A step that was saved last, with the same facts, is not written again, but may
        become the best.
        """
        final = self._folder / manifest.step_folder(step)
        content = (step, encode_bytes(facts))
        if self._world.agree(int(content != self._saved)):
            self._write(state, _Moment(step, facts, periodic))
            self._saved = content
        self._on_first(lambda: self._settle(final, is_best), f"{final} is saved, but not named")
        return final

    def _write(self, state: State, moment: _Moment) -> None:
        made = retention.unfinished(self._folder, moment.step)
        failing = f"the checkpoint of step {moment.step} cannot be saved"
        try:
            intervals, head = self._together(lambda: self._lay_out(state), failing)
            needed = self._total(len(head) + sum(interval.bytes for interval in intervals))
            self._on_first(lambda: _make(made, needed), failing)
            path = made / f"rank-{self._world.rank:05d}.safetensors"
            written = self._together(lambda: _write_shard(path, head, intervals), failing)
            files = self._exchange(written)
            self._on_first(lambda: self._finish(made, files, state, moment), failing)
        except CheckpointError:
            # All ranks agreed that they failed, so nobody writes there any more.
            if self._world.rank == 0:
                shutil.rmtree(made, ignore_errors=True)
            raise

    def _lay_out(self, state: State) -> tuple[list[shard.Interval], bytes]:
        intervals = shard.share(state, self._world.rank, self._world.size)
        steps = json.dumps({name: float(count) for name, count in state.steps.items()})
        return intervals, shard.header(intervals, {"steps": steps})

    def _finish(self, made: Path, files: tuple[File, ...], state: State, moment: _Moment) -> None:
        """Write what is not tensors, the manifest last, and give the folder its name."""
        for file in files:
            if not (made / file.name).is_file():
                raise CheckpointError(
                    f"{file.name} is not there; the run folder must be one that all nodes share"
                )
        with BlockWriter(made / manifest.STATE) as writer:
            writer.write(encode_bytes(_beside_tensors(state, moment.facts)))
        content, checksum = manifest.encoded(
            Manifest(
                step=moment.step,
                samples=int(moment.facts["samples"]),
                engine=self._engine,
                world_size=self._world.size,
                periodic=moment.periodic,
                libraries=_libraries(),
                files=(*files, writer.file()),
            )
        )
        for name, data in ((manifest.CHECKSUM_NAME, checksum), (manifest.NAME, content)):
            with BlockWriter(made / name) as writer:
                writer.write(data)
        retention.sync(made)
        retention.publish(made, moment.step)

    def _settle(self, final: Path, is_best: bool) -> None:
        if is_best:
            retention.point(self._run, retention.BEST, final)
        retention.point(self._run, retention.LAST, final)
        retention.prune(self._run, self._keep_last)

    def _total(self, count: int) -> int:
        return int(self._world.sum(torch.tensor([count], device=self._world.device)))

    def _exchange(self, mine: File) -> tuple[File, ...]:
        """Every rank's file, on every rank: names follow from ranks, numbers are added to zeros."""
        world = self._world
        blocks = int(world.maximum(torch.tensor([len(mine.sha256)], device=world.device)))
        numbers = [mine.bytes, len(mine.sha256)]
        for digest in mine.sha256:
            numbers.extend(_DIGEST.unpack(bytes.fromhex(digest)))
        table = torch.zeros(world.size, 2 + 4 * blocks, dtype=torch.int64)
        table[world.rank, : len(numbers)] = torch.tensor(numbers)
        rows = world.sum(table.to(world.device)).tolist()
        return tuple(_file(rank, row) for rank, row in enumerate(rows))

    def _on_first(self, action: Callable[[], object], failing: str) -> None:
        """Run `action` on rank 0, and agree on how it went."""
        self._together(action if self._world.rank == 0 else lambda: None, failing)

    def _together(self, action: Callable[[], T], failing: str) -> T:
        """Run `action` on every rank; when it failed on one, all raise CheckpointError."""
        fault: Exception | None = None
        try:
            result = action()
        except (OSError, RunFolderError, CheckpointError) as raised:
            fault = raised
        if self._world.agree(int(fault is not None)):
            why = fault or "another rank could not write its part"
            raise CheckpointError(f"{failing}: {why}") from fault
        return result


def _make(made: Path, needed: int) -> None:
    """Make the folder that is written to, where there is room for `needed` bytes."""
    made.parent.mkdir(exist_ok=True)
    free = shutil.disk_usage(made.parent).free
    if free < needed + _SPARE_BYTES:
        raise CheckpointError(
            f"it needs {size(needed + _SPARE_BYTES)}, and {made.parent} has {size(free)} free"
        )
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()


def _write_shard(path: Path, head: bytes, intervals: list[shard.Interval]) -> File:
    with BlockWriter(path) as writer:
        shard.write(writer, head, intervals)
    return writer.file()


def _file(rank: int, row: list[int]) -> File:
    size_bytes, blocks, *numbers = row
    digests = tuple(_DIGEST.pack(*numbers[4 * b : 4 * b + 4]).hex() for b in range(blocks))
    return File(f"rank-{rank:05d}.safetensors", size_bytes, digests)


def _beside_tensors(state: State, facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "shapes": state.shapes,
        "buffers": {name: tuple(buffer.shape) for name, buffer in state.buffers.items()},
        "groups": state.groups,
        "loss_scale": state.loss_scale,
        "facts": facts,
    }


def _libraries() -> dict[str, str]:
    """Versions of what is loaded; nothing is imported for it."""
    loaded = {name: sys.modules[name] for name in _LIBRARIES if name in sys.modules}
    versions = {name: str(module.__version__) for name, module in loaded.items()}
    return {"python": platform.python_version(), **versions}
