"""The JSON files of a checkpoint: manifest.json with sizes and checksums, and state.json."""

from __future__ import annotations

import hashlib
import json
import math
import re
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from training.logging.strict_json import encode_bytes

if TYPE_CHECKING:
    from engines.base import State

FORMAT = "gearshift-checkpoint"
VERSION = 2
_READ = {1: "sha256", 2: "crc32"}
"""The versions that are read, and what their checksums are."""
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
_RANK_FILE = re.compile(r"^rank-[0-9]{5,}\.safetensors$")
_STEP_FOLDER = re.compile(r"^step-([0-9]{8,})$")
_SHA256 = re.compile(r"^[0-9a-f]{64}$")
_FILE_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")


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
    """One file of a checkpoint."""

    name: str
    bytes: int
    checksums: tuple[int, ...]
    """One for each BLOCK_BYTES of the file, in order."""
    algorithm: str = "crc32"
    """crc32 detects all bursts of up to 32 bits and all pairs of flipped bits in a block, and
    misses one in 4e9 of other errors. Source: CRC-32 of ISO/IEC 3309, as in zlib. It takes a third
    of the time of sha256 (version 1) on processors with instructions for both."""


@dataclass(frozen=True)
class Score:
    """The score of a checkpoint that is among the best."""

    metric: str
    value: float
    direction: Literal["min", "max"]
    since: int = 0
    """The step at which the data order began: scores on other data cannot be compared."""
    samples: int | None = None
    """Samples that it is of; None: the whole split. Scores on others cannot be compared."""

    @property
    def rank(self) -> float:
        """Lower is better."""
        return self.value if self.direction == "min" else -self.value


@dataclass(frozen=True)
class Manifest:
    """The content of manifest.json."""

    step: int
    samples: int
    engine: str
    world_size: int
    periodic: bool
    """Whether `save.every` required it; others are the best, the last, or requested."""
    libraries: Mapping[str, str]
    files: tuple[CheckpointFile, ...]
    score: Score | None = None


def step_folder(step: int) -> str:
    """The name of the folder of a step: `step-00000200`."""
    return f"step-{step:08d}"


def step_of(name: str) -> int | None:
    """The step in the name of a folder; None if it is not the name of a checkpoint."""
    match = _STEP_FOLDER.match(name)
    return int(match[1]) if match else None


def rank_file(rank: int) -> str:
    """The name of the file that `rank` writes."""
    return f"rank-{rank:05d}.safetensors"


def is_rank_file(name: str) -> bool:
    """Whether a file of a checkpoint is one that a rank wrote."""
    return _RANK_FILE.match(name) is not None


def render(manifest: Manifest) -> tuple[bytes, bytes]:
    """The content of manifest.json, and of manifest.sha256, which `sha256sum -c` reads."""
    files = [_entry(file) for file in manifest.files]
    fields = {"format": FORMAT, "version": VERSION, **asdict(manifest), "files": files}
    content = encode_bytes(fields, indent=1)
    digest = hashlib.sha256(content).hexdigest()
    return content, f"{digest}  {NAME}\n".encode()


def render_part(file: CheckpointFile) -> bytes:
    """The file by which a rank reports that its shard is complete."""
    return encode_bytes(_entry(file))


def read_part(path: Path) -> CheckpointFile:
    """The report of a rank at `path`. Raises CheckpointError if it is not one."""
    try:
        return _file(json.loads(path.read_bytes()), _READ[VERSION])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
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
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{folder / NAME} is not JSON: {error}") from error
    manifest = _parsed(fields, folder / NAME)
    named = step_of(folder.resolve().name)
    if named is not None and named != manifest.step:
        raise CheckpointError(f"{folder} is named for step {named} but holds step {manifest.step}")
    for file in manifest.files:
        _check_size(folder / file.name, file.bytes)
    return manifest


def _parsed(fields: Any, path: Path) -> Manifest:
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not the manifest of a checkpoint")
    version = fields.get("version")
    if type(version) is not int or version not in _READ:
        raise CheckpointError(
            f"{path} has format version {version!r}; this program reads"
            f" {' and '.join(map(str, _READ))}"
        )
    try:
        manifest = Manifest(
            step=_count(fields["step"]),
            samples=_count(fields["samples"]),
            engine=_text(fields["engine"]),
            world_size=_count(fields["world_size"]),
            periodic=fields["periodic"] is True,
            libraries={_text(k): _text(v) for k, v in fields["libraries"].items()},
            files=tuple(_file(entry, _READ[version]) for entry in fields["files"]),
            score=_score(fields.get("score")),
        )
        _check_names(manifest)
        return manifest
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a manifest of version {version}: {error!r}"
        ) from error


def _check_names(manifest: Manifest) -> None:
    """Check that each rank has its file, and that there are no unknown files."""
    names = [file.name for file in manifest.files]
    ranks = sorted(name for name in names if is_rank_file(name))
    others = {name for name in names if not is_rank_file(name)}
    if len(names) != len(ranks) + len(others) or len(ranks) != manifest.world_size:
        raise ValueError(f"{len(ranks)} rank files, or duplicates, for {manifest.world_size} ranks")
    if ranks != sorted(map(rank_file, range(len(ranks)))):
        raise ValueError("the rank files are not numbered from 0")
    if not {STATE} <= others <= {STATE, MODEL}:
        raise ValueError(f"{', '.join(sorted(others))} instead of {STATE} beside the rank files")
    if next(file.bytes for file in manifest.files if file.name == STATE) > LARGEST_JSON:
        raise ValueError(f"{STATE} is too large")


def _entry(file: CheckpointFile) -> dict[str, Any]:
    return {"name": file.name, "bytes": file.bytes, file.algorithm: file.checksums}


def _file(entry: Any, algorithm: str) -> CheckpointFile:
    name, size = _text(entry["name"]), _count(entry["bytes"])
    checksums = tuple(_checksum(value, algorithm) for value in entry[algorithm])
    # A name with a separator or a leading dot could point outside the folder.
    if not _FILE_NAME.match(name):
        raise ValueError(f"{name!r} is not a file name")
    if len(checksums) != -(-size // BLOCK_BYTES):
        raise ValueError(f"{name} does not have one checksum per {BLOCK_BYTES} bytes")
    return CheckpointFile(name, size, checksums, algorithm)


def _checksum(value: Any, algorithm: str) -> int:
    if algorithm == "sha256":
        if not _SHA256.match(_text(value)):
            raise ValueError(f"{value!r} is not a sha256")
        return int(value, 16)
    if _count(value) >= 2**32:
        raise ValueError(f"{value!r} is not a CRC-32")
    return int(value)


def _score(fields: Any) -> Score | None:
    if fields is None:
        return None
    value, direction = fields["value"], fields["direction"]
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a score")
    if direction not in ("min", "max"):
        raise ValueError(f"{direction!r} is not min or max")
    since = _count(fields.get("since", 0))
    samples = fields.get("samples")
    samples = None if samples is None else _count(samples)
    return Score(_text(fields["metric"]), float(value), direction, since, samples)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{value!r} is not a count")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a string")
    return value


def _check_size(path: Path, expected: int) -> None:
    actual = _regular_size(path)
    if actual != expected:
        raise CheckpointError(f"{path} is damaged: {actual} bytes instead of {expected}")


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


@dataclass(frozen=True)
class StateFile:
    """The content of state.json."""

    shapes: Mapping[str, tuple[int, ...]]
    """Of parameters."""
    buffers: Mapping[str, tuple[int, ...]]
    """Shapes of buffers."""
    groups: list[dict[str, Any]]
    loss_scale: Mapping[str, float]
    facts: Mapping[str, Any]
    """Of the loop."""


def render_state(state: State, facts: Mapping[str, Any]) -> bytes:
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
    """Read state.json at `path`.

    Raises OSError, and ValueError, KeyError, TypeError, AttributeError or RecursionError for other
    content.
    """
    fields = json.loads(path.read_bytes())
    groups = fields["groups"]
    if type(groups) is not list or not all(_is_group(group) for group in groups):
        raise ValueError("invalid parameter groups")
    return StateFile(
        shapes={name: _shape(shape) for name, shape in fields["shapes"].items()},
        buffers={name: _shape(shape) for name, shape in fields["buffers"].items()},
        groups=groups,
        loss_scale={name: _finite(value) for name, value in fields["loss_scale"].items()},
        facts=dict(fields["facts"].items()),
    )


def parse_steps(text: str) -> dict[str, float]:
    """Parse optimizer steps by parameter from the metadata of a file. Raises as `read_state`."""
    steps = {name: _finite(count) for name, count in json.loads(text).items()}
    if any(count < 0 for count in steps.values()):
        raise ValueError("negative number of steps")
    return steps


def _is_group(group: Any) -> bool:
    return isinstance(group, dict) and all(isinstance(name, str) for name in group["names"])


def _shape(axes: Any) -> tuple[int, ...]:
    if type(axes) is not list or any(type(axis) is not int or axis < 0 for axis in axes):
        raise ValueError(f"{axes!r:.100} is not a shape")
    return tuple(axes)


def _finite(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{value!r:.100} is not a finite number")
    return value
