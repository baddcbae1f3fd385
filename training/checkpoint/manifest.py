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
"""All that is no tensor: shapes, groups, loss scale and the loop's own facts."""
CHECKSUM_NAME = "manifest.sha256"
MODEL = "model.safetensors"
"""The weights alone, as other programs read them; where an evaluation gave a verdict."""
BLOCK_BYTES = 16 * 2**20
"""Files have a checksum for each so many bytes, so that many threads or ranks can check one."""
LARGEST_JSON = 64 * 2**20
"""More is not read into memory."""
_RANK_FILE = re.compile(r"^rank-[0-9]{5,}\.safetensors$")
_STEP_FOLDER = re.compile(r"^step-([0-9]{8,})$")
_SHA256 = re.compile(r"^[0-9a-f]{64}$")
_FILE_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")


class CheckpointError(Exception):
    """A checkpoint cannot be written or read; the text says which file, and what is wrong."""


@dataclass(frozen=True)
class File:
    """One file of a checkpoint."""

    name: str
    bytes: int
    checksums: tuple[int, ...]
    """One for each BLOCK_BYTES of the file, in order."""
    algorithm: str = "crc32"
    """crc32 finds every damage of up to 32 bits in a row and every two flipped bits of a block, and
    misses one in 4e9 of others. Source: CRC-32 of ISO/IEC 3309, as in zlib. It takes a third of
    the time of sha256, which version 1 has, where a processor has instructions for both."""


@dataclass(frozen=True)
class Score:
    """What an evaluation said of a checkpoint that it found among the best."""

    metric: str
    value: float
    direction: Literal["min", "max"]
    since: int = 0
    """The step at which the order of the data began: what was measured on other data is no better
    or worse."""

    @property
    def rank(self) -> float:
        """Lower is better."""
        return self.value if self.direction == "min" else -self.value


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint is."""

    step: int
    samples: int
    engine: str
    world_size: int
    periodic: bool
    """Whether it was due at its step; others are the best, the last, or asked for."""
    libraries: Mapping[str, str]
    files: tuple[File, ...]
    score: Score | None = None


def step_folder(step: int) -> str:
    """The name of the folder of a step: `step-00000200`."""
    return f"step-{step:08d}"


def step_of(name: str) -> int | None:
    """The step that a folder's name says; None where it is no name of a checkpoint."""
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
    told = {"format": FORMAT, "version": VERSION, **asdict(manifest), "files": files}
    content = encode_bytes(told, indent=1)
    digest = hashlib.sha256(content).hexdigest()
    return content, f"{digest}  {NAME}\n".encode()


def render_part(file: File) -> bytes:
    """What a rank leaves in the hidden folder to say that its file is whole."""
    return encode_bytes(_entry(file))


def read_part(path: Path) -> File:
    """What another rank left at `path`. Raises CheckpointError where it is nothing of the kind."""
    try:
        return _file(json.loads(path.read_bytes()), _READ[VERSION])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as fault:
        raise CheckpointError(f"{path} does not say what a rank has written: {fault}") from fault


def read(folder: Path) -> Manifest:
    """The manifest of `folder`, itself checked, and the size of each file. Touches disk.

    Raises CheckpointError. The content of the files is not read.
    """
    content = _read_small(folder / NAME)
    words = _read_small(folder / CHECKSUM_NAME).decode("ascii", "replace").split()
    if words != [hashlib.sha256(content).hexdigest(), NAME]:
        raise CheckpointError(f"{folder / NAME} is damaged: its checksum is not that of the file")
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as fault:
        raise CheckpointError(f"{folder / NAME} is no JSON: {fault}") from fault
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
            score=_verdict(fields.get("score")),
        )
        _check_names(manifest)
        return manifest
    except (KeyError, TypeError, AttributeError, ValueError) as fault:
        raise CheckpointError(
            f"{path} is not a manifest of version {version}: {fault!r}"
        ) from fault


def _check_names(manifest: Manifest) -> None:
    """Each rank has its file, and there is nothing that nobody reads."""
    names = [file.name for file in manifest.files]
    ranks = sorted(name for name in names if is_rank_file(name))
    others = {name for name in names if not is_rank_file(name)}
    if len(names) != len(ranks) + len(others) or len(ranks) != manifest.world_size:
        raise ValueError(f"{len(ranks)} files of {manifest.world_size} ranks, or one twice")
    if ranks != sorted(map(rank_file, range(len(ranks)))):
        raise ValueError("the files of ranks are not numbered from 0 on")
    if not {STATE} <= others <= {STATE, MODEL}:
        raise ValueError(f"{', '.join(sorted(others))} beside ranks, where {STATE} belongs")
    if next(file.bytes for file in manifest.files if file.name == STATE) > LARGEST_JSON:
        raise ValueError(f"{STATE} is too large")


def _entry(file: File) -> dict[str, Any]:
    return {"name": file.name, "bytes": file.bytes, file.algorithm: file.checksums}


def _file(entry: Any, algorithm: str) -> File:
    name, size = _text(entry["name"]), _count(entry["bytes"])
    checksums = tuple(_checksum(value, algorithm) for value in entry[algorithm])
    # A name with a separator or a leading dot could lead out of the folder.
    if not _FILE_NAME.match(name):
        raise ValueError(f"{name!r} is no name of a file in this folder")
    if len(checksums) != -(-size // BLOCK_BYTES):
        raise ValueError(f"the checksums of {name} are not one for each {BLOCK_BYTES} bytes")
    return File(name, size, checksums, algorithm)


def _checksum(value: Any, algorithm: str) -> int:
    if algorithm == "sha256":
        if not _SHA256.match(_text(value)):
            raise ValueError(f"{value!r} where a sha256 belongs")
        return int(value, 16)
    if _count(value) >= 2**32:
        raise ValueError(f"{value!r} where a CRC-32 belongs")
    return int(value)


def _verdict(fields: Any) -> Score | None:
    if fields is None:
        return None
    value, direction = fields["value"], fields["direction"]
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{value!r} where the value of a verdict belongs")
    if direction not in ("min", "max"):
        raise ValueError(f"{direction!r} where min or max belongs")
    since = _count(fields.get("since", 0))
    return Score(_text(fields["metric"]), float(value), direction, since)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{value!r} where a count belongs")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} where text belongs")
    return value


def _check_size(path: Path, expected: int) -> None:
    found = _regular_size(path)
    if found != expected:
        raise CheckpointError(f"{path} is damaged: {found} bytes where {expected} were written")


def _read_small(path: Path) -> bytes:
    if _regular_size(path) > LARGEST_JSON:
        raise CheckpointError(f"{path} is too large to be what it says")
    return path.read_bytes()


def _regular_size(path: Path) -> int:
    """Size of `path`, which must be a file itself: a link could lead out of the folder."""
    try:
        found = path.lstat()
    except OSError as fault:
        raise CheckpointError(f"{path} cannot be read: {fault.strerror}") from fault
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError(f"{path} is not a regular file")
    return found.st_size


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
    """The loop's own."""


def render_state(state: State, facts: Mapping[str, Any]) -> bytes:
    """The content of state.json. Raises CheckpointError where it is more than would be read."""
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
        raise CheckpointError(f"what is no tensor takes {len(content)} bytes of JSON")
    return content


def read_state(path: Path) -> StateFile:
    """The content of state.json at `path`.

    Raises OSError, and ValueError, KeyError, TypeError, AttributeError or RecursionError where it
    is something else.
    """
    fields = json.loads(path.read_bytes())
    groups = fields["groups"]
    if type(groups) is not list or not all(_is_group(group) for group in groups):
        raise ValueError("its groups are not what an optimizer has")
    return StateFile(
        shapes={name: _shape(shape) for name, shape in fields["shapes"].items()},
        buffers={name: _shape(shape) for name, shape in fields["buffers"].items()},
        groups=groups,
        loss_scale={name: _finite(value) for name, value in fields["loss_scale"].items()},
        facts=dict(fields["facts"].items()),
    )


def parse_steps(text: str) -> dict[str, float]:
    """Optimizer steps by parameter, from the metadata of a file. Raises as `read_state`."""
    steps = {name: _finite(count) for name, count in json.loads(text).items()}
    if any(count < 0 for count in steps.values()):
        raise ValueError("a number of steps below zero")
    return steps


def _is_group(group: Any) -> bool:
    return isinstance(group, dict) and all(isinstance(name, str) for name in group["names"])


def _shape(axes: Any) -> tuple[int, ...]:
    if type(axes) is not list or any(type(axis) is not int or axis < 0 for axis in axes):
        raise ValueError(f"{axes!r:.100} is no shape")
    return tuple(axes)


def _finite(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{value!r:.100} where a finite number belongs")
    return value
