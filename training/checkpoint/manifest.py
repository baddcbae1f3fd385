"""The JSON files of a checkpoint: manifest.json with sizes and checksums, and state.json."""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError

from training.callbacks.base import Facts
from training.logging.strict_json import encode_bytes
from training.storage import parse_json

if TYPE_CHECKING:
    from engines.base import State

FORMAT = "gearshift-checkpoint"
VERSION = 2
NAME = "manifest.json"
STATE = "state.json"
"""Everything except tensors: shapes, groups, loss scale and the facts of the loop."""
CHECKSUM_NAME = "manifest.sha256"
MODEL = "model.safetensors"
"""The weights alone, for other programs; in checkpoints with a score."""
BLOCK_BYTES = 16 * 2**20
"""Files have one checksum per block, so that several threads and ranks can verify a file."""
LARGEST_JSON = 64 * 2**20
"""Larger files are not read into memory."""
RANK_FILE = re.compile(r"^rank-[0-9]{5,}\.safetensors$")
_STEP_FOLDER = re.compile(r"^step-([0-9]{8,})$")

Count = Annotated[int, Field(ge=0, lt=2**63)]
_Shapes = Mapping[str, tuple[Count, ...]]


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written or read; the message has the file and the reason."""


class CheckpointUnreadable(CheckpointError):
    """This user may not read a checkpoint, which may be whole; nothing may happen to it."""


def read_error(path: Path, error: OSError) -> CheckpointError:
    """The error for a file of a checkpoint that cannot be read."""
    kind = CheckpointUnreadable if isinstance(error, PermissionError) else CheckpointError
    return kind(f"{path} cannot be read: {error.strerror or error}")


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


@dataclass(frozen=True)
class Manifest:
    """The content of manifest.json."""

    step: Count
    samples: Count
    engine: str
    world_size: Count
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


_MANIFEST, _FILE, _STATE = (TypeAdapter(Manifest), TypeAdapter(CheckpointFile), TypeAdapter(StateFile))
_STEPS = TypeAdapter(dict[str, Annotated[FiniteFloat, Field(ge=0)]])


def step_folder(step: int) -> str:
    return f"step-{step:08d}"


def step_of(name: str) -> int | None:
    """The step in the name of a folder; None if it is not the name of a checkpoint."""
    match = _STEP_FOLDER.match(name)
    return int(match[1]) if match else None


def rank_file(rank: int) -> str:
    return f"rank-{rank:05d}.safetensors"


def render(manifest: Manifest) -> tuple[bytes, bytes]:
    """The content of manifest.json, and of manifest.sha256, which `sha256sum -c` reads."""
    content = encode_bytes({"format": FORMAT, "version": VERSION, **asdict(manifest)}, indent=1)
    digest = hashlib.sha256(content).hexdigest()
    return content, f"{digest}  {NAME}\n".encode()


def render_part(file: CheckpointFile) -> bytes:
    """The file by which a rank reports that its shard is complete."""
    return encode_bytes(asdict(file))


def read_part(path: Path) -> CheckpointFile:
    """The report of a rank at `path`. Raises CheckpointError if it is not one."""
    try:
        return _FILE.validate_json(path.read_bytes(), strict=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not the report of a shard: {error}") from error


def read(folder: Path) -> Manifest:
    """Read the manifest of `folder` and verify its checksum and the sizes of all files.

    Raises CheckpointError; CheckpointUnreadable without permission. Touches disk; does not read the
    content of the files.
    """
    content = _read_small(folder / NAME)
    checksum = _read_small(folder / CHECKSUM_NAME).decode("ascii", "replace").split()
    if checksum != [hashlib.sha256(content).hexdigest(), NAME]:
        raise CheckpointError(f"{folder / NAME} is damaged: wrong checksum")
    path = folder / NAME
    try:
        fields = parse_json(content)
        if not isinstance(fields, dict) or fields.get("format") != FORMAT:
            raise CheckpointError(f"{path} is not the manifest of a checkpoint")
        if (version := fields.get("version")) != VERSION:
            raise CheckpointError(f"{path} has format version {version!r}; this program reads {VERSION}")
        manifest = _MANIFEST.validate_json(content, strict=True)
        names = sorted(file.name for file in manifest.files)
        ranks = list(map(rank_file, range(min(manifest.world_size, len(names)))))
        if not ranks or names not in (sorted([*ranks, STATE]), sorted([*ranks, STATE, MODEL])):
            raise ValueError(f"files of {manifest.world_size} ranks: {', '.join(names[:8])}")
        for file in manifest.files:
            if len(file.crc32) != -(-file.bytes // BLOCK_BYTES):
                raise ValueError(f"{file.name} does not have one checksum per {BLOCK_BYTES} bytes")
            if file.name == STATE and file.bytes > LARGEST_JSON:
                raise ValueError(f"{STATE} is too large")
    except ValueError as error:
        text = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            text = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise CheckpointError(f"{path} is no manifest: {text}") from error
    named = step_of(folder.resolve().name)
    if named is not None and named != manifest.step:
        raise CheckpointError(f"{folder} is named for step {named} but holds step {manifest.step}")
    for file in manifest.files:
        size = _regular_size(folder / file.name)
        if size != file.bytes:
            raise CheckpointError(f"{folder / file.name} is damaged: {size} bytes instead of {file.bytes}")
    return manifest


def _read_small(path: Path) -> bytes:
    if _regular_size(path) > LARGEST_JSON:
        raise CheckpointError(f"{path} is too large")
    try:
        return path.read_bytes()
    except OSError as error:
        raise read_error(path, error) from error


def _regular_size(path: Path) -> int:
    """The size of the regular file `path`; a link could point outside the folder."""
    try:
        status = path.lstat()
    except OSError as error:
        raise read_error(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(f"{path} is not a regular file")
    return status.st_size


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
    if len(content) > LARGEST_JSON:
        raise CheckpointError(f"{STATE} would have {len(content)} bytes")
    return content


def read_state(path: Path) -> StateFile:
    """Read state.json at `path`. Raises OSError, and ValueError or KeyError for other content."""
    state = _STATE.validate_json(path.read_bytes(), strict=True)
    if not all(isinstance(name, str) for group in state.groups for name in group["names"]):
        raise ValueError("invalid parameter groups")
    return state


def parse_steps(text: str) -> dict[str, float]:
    """Parse optimizer steps by parameter from the metadata of a file. Raises ValueError."""
    return _STEPS.validate_json(text, strict=True)
