"""A checkpoint that is not what was written is refused by name."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engines.base import State
from engines.world import ProcessWorld
from tests.training.checkpoint.states import bits, state, whole
from training.checkpoint.manifest import CheckpointError
from training.checkpoint.reader import open_checkpoint
from training.checkpoint.retention import Keep
from training.checkpoint.saver import Saver

FILES = ["rank-00000.safetensors", "state.json", "manifest.json", "manifest.sha256"]


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest as somebody would who knows the format."""
    fields = json.loads((folder / "manifest.json").read_text())
    change(fields)
    content = json.dumps(fields).encode()
    (folder / "manifest.json").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    (folder / "manifest.sha256").write_text(f"{digest}  manifest.json\n")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0, 1 / 2, 1])
def test_any_flipped_bit_is_found(saved: Path, name: str, place: float):
    data = bytearray((saved / name).read_bytes())
    # The end of manifest.sha256 is a line break, which says nothing.
    data[int(place * (len(data) - 2))] ^= 1
    (saved / name).write_bytes(data)

    with pytest.raises(CheckpointError, match=name.replace("sha256", "json")):
        open_checkpoint(saved)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(saved: Path, name: str):
    (saved / name).unlink()

    with pytest.raises(CheckpointError, match=rf"{name} cannot be read: No such file"):
        open_checkpoint(saved)


@pytest.mark.parametrize("name", FILES[:2])
def test_a_file_cut_short_is_named(saved: Path, name: str):
    data = (saved / name).read_bytes()
    (saved / name).write_bytes(data[:-1])

    with pytest.raises(CheckpointError, match=rf"{name} is damaged: {len(data) - 1} bytes where"):
        open_checkpoint(saved)


def test_a_folder_under_the_name_of_another_step_is_refused(saved: Path):
    other = saved.rename(saved.with_name("step-00000021"))

    with pytest.raises(CheckpointError, match="named for step 21 but holds step 20"):
        open_checkpoint(other)


def test_another_format_version_is_named(saved: Path):
    rewrite(saved, lambda fields: fields.update(version=2))

    with pytest.raises(CheckpointError, match="has format version 2; this program reads 1"):
        open_checkpoint(saved)


@pytest.mark.parametrize("name", ["../rank-00000.safetensors", "/etc/passwd", "..", "", ".hidden"])
def test_a_manifest_cannot_lead_out_of_its_folder(saved: Path, name: str):
    shutil.copy(saved / FILES[0], saved.parent)
    rewrite(saved, lambda fields: fields["files"][0].update(name=name))

    with pytest.raises(CheckpointError, match="is no name of a file in this folder"):
        open_checkpoint(saved)


@pytest.mark.parametrize("name", FILES)
def test_a_link_in_place_of_a_file_is_refused(saved: Path, tmp_path: Path, name: str):
    elsewhere = (saved / name).rename(tmp_path / name)
    (saved / name).symlink_to(elsewhere)

    with pytest.raises(CheckpointError, match=f"{name} is not a regular file"):
        open_checkpoint(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.update(step=-1),
        lambda fields: fields.update(step=True),
        lambda fields: fields.update(samples=1e9),
        lambda fields: fields.update(files=7),
        lambda fields: fields.update(libraries=[]),
        lambda fields: fields["files"][0].update(bytes=2**70),
        lambda fields: fields["files"][0].update(sha256=[]),
        lambda fields: fields["files"][0].update(sha256=["x" * 64]),
        lambda fields: fields.pop("engine"),
        lambda fields: fields.update(format="other"),
        lambda fields: fields["files"].pop(),
    ],
)
def test_a_manifest_of_another_shape_is_refused(saved: Path, change: Callable[..., object]):
    rewrite(saved, change)

    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        open_checkpoint(saved)


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff\xfe", b"null"])
def test_a_manifest_that_is_no_manifest_is_refused(saved: Path, content: bytes):
    (saved / "manifest.json").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    (saved / "manifest.sha256").write_text(f"{digest}  manifest.json\n")

    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        open_checkpoint(saved)


@pytest.mark.parametrize("kind", ["weight", "exp_avg"])
def test_a_tensor_with_a_gap_is_named(tmp_path: Path, alone: ProcessWorld, kind: str):
    full = state(whole())
    pieces = [p for p in full.pieces if (p.kind, p.name) != (kind, "odd|name")]
    pieces.append(type(full.pieces[0])(kind, "odd|name", 1, torch.zeros(6), False))
    torn = State(**{**vars(full), "pieces": pieces})
    saver = Saver(tmp_path, alone, "local", Keep(1, 1, None), in_background=False)
    saver.save(1, torn, {"samples": 1}, periodic=False, verdict=None)

    with pytest.raises(CheckpointError, match=rf"{kind} of odd\|name is not whole"):
        open_checkpoint(tmp_path / "last")


def test_an_interval_is_read_across_the_files_it_lies_in(saved: Path):
    flat = whole()["exp_avg_sq"]["embed.weight"].reshape(-1)

    read = open_checkpoint(saved).interval("exp_avg_sq", "embed.weight", 5, 60)
    assert bits(read) == bits(flat[5:60])


def test_a_tensor_that_is_not_there_is_a_key_error(saved: Path):
    found = open_checkpoint(saved)

    with pytest.raises(KeyError):
        found.tensor("exp_avg", "frozen")
    with pytest.raises(KeyError):
        found.buffer("nothing")
