"""The files of a checkpoint: manifest.json with sizes and checksums, and state.json."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import zlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, FiniteFloat, TypeAdapter

from gearshift.training.callbacks.base import Facts
from gearshift.training.logging.encoding import encode_bytes
from gearshift.training.storage import MOST_BYTES, read_regular, storage_errors

if TYPE_CHECKING:
    from gearshift.engines.base import State

NAME = "manifest.json"
STATE = "state.json"
"""Everything except tensors: shapes, groups, loss scale and the facts of the loop."""
CHECKSUM_NAME = "manifest.sha256"
MODEL = "model.safetensors"
"""The weights alone, for other programs; in checkpoints with a score."""
BLOCK_BYTES = 16 * 2**20
"""Files have one checksum per block, so that several threads and ranks can verify a file."""
RANK_FILE = re.compile(r"^rank-[0-9]{5,}\.safetensors$")
_STEP_FOLDER = re.compile(r"^step-([0-9]{8,})$")
_THREADS = 4
_MOST_RANKS = 10**5

Count = Annotated[int, Field(ge=0, lt=2**63)]
_Shapes = Mapping[str, tuple[Count, ...]]


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written or read; the message has the file and the reason."""


class CheckpointDamaged(CheckpointError):
    """Bytes of a checkpoint have another checksum than when they were written."""


class CheckpointSetAside(CheckpointDamaged):
    """A damaged checkpoint of this run was renamed: the next start takes the one before it."""


class CheckpointUnreadable(CheckpointError):
    """This user may not read a checkpoint, which may be whole; nothing may happen to it."""


@contextmanager
def read_errors(path: Path, *others: type[Exception]) -> Iterator[None]:
    """Turn errors in reading the untrusted file `path`, and `others`, into CheckpointError."""
    kinds: tuple[type[Exception], ...] = (ValueError, KeyError, TypeError, *others)
    try:
        yield
    except OSError as error:
        kind = CheckpointUnreadable if isinstance(error, PermissionError) else CheckpointError
        raise kind(f"{error.filename or path} cannot be read: {error.strerror or error}") from error
    except kinds as error:
        raise CheckpointError(f"{path} is not part of a checkpoint: {error!r:.300}") from error


@dataclass(frozen=True)
class CheckpointFile:
    # A name with a separator or a leading dot could point outside the folder.
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    bytes: Count
    crc32: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...]
    """One for each BLOCK_BYTES of the file, in order. It detects all bursts of up to 32 bits and
    all pairs of flipped bits in a block, and misses one in 4e9 of other errors. Source: CRC-32 of
    ISO/IEC 3309, as in zlib. It takes a third of the time of sha256 on processors with instructions
    for both."""


@dataclass(frozen=True)
class Score:
    metric: str
    value: FiniteFloat
    direction: Literal["min", "max"]
    since: Count = 0
    """The step at which the data order began: scores on other data cannot be compared."""
    samples: Count | None = None
    """Samples that it is of; None: the whole split. Scores on others cannot be compared."""

    @property
    def rank(self) -> float:
        """Lower is better."""
        return self.value if self.direction == "min" else -self.value


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of manifest.json."""

    format: Literal["gearshift-checkpoint"] = "gearshift-checkpoint"
    version: Literal[2] = 2
    step: Count
    samples: Count
    engine: str
    world_size: Annotated[int, Field(ge=1, le=_MOST_RANKS)]
    periodic: bool
    """Whether `save.every` required it; others are the best, the last, or requested."""
    libraries: Mapping[str, str]
    files: tuple[CheckpointFile, ...]
    score: Score | None = None


@dataclass(frozen=True)
class StateFile:
    """The content of state.json."""

    shapes: _Shapes
    """Of parameters."""
    buffers: _Shapes
    """Shapes of buffers."""
    groups: list[dict[str, Any]]
    loss_scale: Mapping[str, int | FiniteFloat]
    facts: Facts
    """Of the loop."""


FILE = TypeAdapter(CheckpointFile)
STEPS = TypeAdapter(dict[str, Annotated[FiniteFloat, Field(ge=0)]])
"""Optimizer steps by parameter."""
_MANIFEST = TypeAdapter(Manifest)
_STATE = TypeAdapter(StateFile)


def step_folder(step: int) -> str:
    return f"step-{step:08d}"


def step_of(name: str) -> int | None:
    """The step in the name of a folder; None if it is not the name of a checkpoint."""
    match = _STEP_FOLDER.match(name)
    return int(match[1]) if match else None


def rank_file(rank: int) -> str:
    return f"rank-{rank:05d}.safetensors"


def write_file(path: Path, chunks: Iterable[memoryview | bytes]) -> CheckpointFile:
    """Write the new file `path`, with checksums, and sync it to the device. Holds no data.

    A chunk is bytes one by one (a memoryview of format "B"). Touches disk. Raises StorageError.
    """
    size = 0
    checksums: list[int] = []
    with storage_errors(path), path.open("xb", buffering=0) as stream:
        for chunk in chunks:
            rest = memoryview(chunk)
            while rest:
                in_block = size % BLOCK_BYTES
                if in_block == 0:
                    checksums.append(0)
                count = stream.write(rest[: BLOCK_BYTES - in_block])
                checksums[-1] = zlib.crc32(rest[:count], checksums[-1])
                size = size + count
                rest = rest[count:]
        os.fsync(stream.fileno())
    return CheckpointFile(path.name, size, tuple(checksums))


def check_files(
    folder: Path,
    files: Iterable[CheckpointFile],
    part: int = 0,
    parts: int = 1,
) -> None:
    """Compare the blocks of `files` with their checksums; with `parts`, every `parts`-th block.

    Raises CheckpointError with the first wrong file and offset. Touches disk.
    """
    blocks = []
    for file in files:
        for number, checksum in enumerate(file.crc32):
            blocks.append((folder / file.name, number * BLOCK_BYTES, checksum))

    def check(block: tuple[Path, int, int]) -> None:
        read_block(*block)

    with ThreadPoolExecutor(_THREADS, "checksum") as pool:
        list(pool.map(check, blocks[part::parts]))


def read_block(path: Path, start: int, checksum: int) -> bytearray:
    """The bytes of a block. Raises CheckpointDamaged for another checksum, and CheckpointError."""
    data = bytearray(BLOCK_BYTES)
    # Read, not mapped: an unreadable sector would kill the process.
    with read_errors(path), path.open("rb") as stream:
        stream.seek(start)
        size = stream.readinto(data)
    del data[size:]
    if zlib.crc32(data) != checksum:
        raise CheckpointDamaged(f"{path} is damaged: wrong checksum of the block at byte {start}")
    return data


def render(manifest: Manifest) -> tuple[bytes, bytes]:
    """The content of manifest.json, and of manifest.sha256, which `sha256sum -c` reads."""
    content = encode_bytes(asdict(manifest), indent=1)
    return content, f"{hashlib.sha256(content).hexdigest()}  {NAME}\n".encode()


def read(folder: Path) -> Manifest:
    """Read the manifest of `folder` and verify its checksum and the sizes of all files.

    Raises CheckpointError; CheckpointUnreadable without permission. Touches disk; does not read the
    content of the files.
    """
    path = folder / NAME
    with read_errors(path):
        content = read_regular(path)
        checksum = read_regular(folder / CHECKSUM_NAME)
        if checksum.split() != [hashlib.sha256(content).hexdigest().encode(), NAME.encode()]:
            raise CheckpointError(f"{path} is damaged: wrong checksum")
        manifest = _MANIFEST.validate_json(content, strict=True)

    names = sorted(file.name for file in manifest.files if file.name != MODEL)
    if names != [*map(rank_file, range(manifest.world_size)), STATE]:
        raise CheckpointError(f"{path} is no manifest of {manifest.world_size} ranks")
    if step_of(folder.resolve().name) not in (None, manifest.step):
        raise CheckpointError(f"{folder} holds step {manifest.step}")
    for file in manifest.files:
        with read_errors(folder / file.name):
            status = (folder / file.name).lstat()  # a link could point outside the folder
        if not stat.S_ISREG(status.st_mode) or status.st_size != file.bytes:
            raise CheckpointError(f"{folder / file.name} is damaged: no file of {file.bytes} bytes")
        if len(file.crc32) != -(-file.bytes // BLOCK_BYTES):
            raise CheckpointError(f"{path} has {len(file.crc32)} checksums of {file.name}")
    return manifest


def render_state(state: State, facts: Facts) -> bytes:
    """The content of state.json as bytes. Raises CheckpointError if it is too large to read."""
    content = encode_bytes(
        {
            "shapes": state.shapes,
            "buffers": {name: tuple(buffer.shape) for name, buffer in state.buffers.items()},
            "groups": state.groups,
            "loss_scale": state.loss_scale,
            "facts": facts,
        }
    )
    if len(content) > MOST_BYTES:
        raise CheckpointError(f"{STATE} would have {len(content)} bytes")
    return content


def read_state(path: Path) -> StateFile:
    """Read state.json at `path`. Raises OSError, and ValueError for other content."""
    return _STATE.validate_json(read_regular(path), strict=True)
