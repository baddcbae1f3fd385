"""A damaged or changed checkpoint is refused by name."""

import hashlib
import json
import shutil
import zlib

import pytest
import torch

from gearshift.engines.base import State
from gearshift.training.checkpoint import manifest
from gearshift.training.checkpoint.manifest import CheckpointError
from gearshift.training.checkpoint.reader import open_checkpoint
from tests.training.checkpoint.states import bits, saving, state, whole

FILES = ["rank-00000.safetensors", "state.json", "manifest.json", "manifest.sha256"]


def rewrite(folder, change):
    """Change the manifest and its checksum."""
    fields = json.loads((folder / "manifest.json").read_text())
    change(fields)
    content = json.dumps(fields).encode()
    (folder / "manifest.json").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    (folder / "manifest.sha256").write_text(f"{digest}  manifest.json\n")


def replace_file(folder, name, content):
    """Replace the content of a file, with matching checksums."""
    (folder / name).write_bytes(content)

    def update_checksums(fields):
        (entry,) = (file for file in fields["files"] if file["name"] == name)
        entry.update(bytes=len(content), crc32=[zlib.crc32(content)] if content else [])

    rewrite(folder, update_checksums)


def head_of(data):
    """The table and the numbers of a safetensors file."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def assert_refused(folder, message):
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(folder)


def with_head(text, numbers=b""):
    encoded = text if isinstance(text, bytes) else text.encode()
    return len(encoded).to_bytes(8, "little") + encoded + numbers


@pytest.mark.parametrize("name", FILES)
def test_any_flipped_bit_a_missing_file_and_a_link_are_found(saved, tmp_path, name):
    whole_file = (saved / name).read_bytes()
    for fraction in (0, 1 / 2, 1):
        data = bytearray(whole_file)
        # The end of manifest.sha256 is a line break without meaning.
        data[int(fraction * (len(data) - 2))] ^= 1
        (saved / name).write_bytes(data)
        assert_refused(saved, name.replace("sha256", "json"))

    (saved / name).unlink()
    assert_refused(saved, name)

    (tmp_path / name).write_bytes(whole_file)
    (saved / name).symlink_to(tmp_path / name)
    assert_refused(saved, name)


@pytest.mark.parametrize("name", FILES[:2])
def test_a_truncated_file_is_named(saved, name):
    data = (saved / name).read_bytes()
    (saved / name).write_bytes(data[:-1])
    assert_refused(saved, rf"{name} is damaged")
    with pytest.raises(CheckpointError, match=rf"{name} is damaged"):
        manifest.read(saved)  # without a look at the content, as retention counts whole ones


@pytest.mark.parametrize("name", ["../rank-00000.safetensors", "/etc/passwd", "..", "", ".hidden"])
def test_a_manifest_cannot_lead_out_of_its_folder(saved, name):
    shutil.copy(saved / FILES[0], saved.parent)
    rewrite(saved, lambda fields: fields["files"][0].update(name=name))
    assert_refused(saved, r"manifest\.json is not part of")


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.update(step=-1),
        lambda fields: fields.update(samples=1e9),
        lambda fields: fields["files"][0].update(bytes=2**70),
        lambda fields: fields["files"][0].update(crc32=[]),
        lambda fields: fields["files"][0].update(crc32=[2**32]),
        lambda fields: fields.pop("engine"),
        lambda fields: fields.update(format="other"),
        lambda fields: fields["files"].pop(),
        lambda fields: fields["files"].append(fields["files"][0]),
        lambda fields: fields["files"].append({**fields["files"][0], "name": "other"}),
        lambda fields: fields["files"][0].update(name="rank-00001.safetensors"),
        lambda fields: fields.update(world_size=2**62),
        lambda fields: fields.update(score={"metric": "l", "value": 1.0, "direction": "up"}),
    ],
)
def test_a_manifest_of_another_shape_is_refused(saved, change):
    rewrite(saved, change)
    assert_refused(saved, r"manifest\.json")


@pytest.mark.parametrize("kind", ["weight", "exp_avg"])
def test_a_tensor_with_a_gap_is_named(tmp_path, alone, kind):
    full = state(whole())
    pieces = [p for p in full.pieces if (p.kind, p.name) != (kind, "odd|name")]
    pieces.append(type(full.pieces[0])(kind, "odd|name", 1, torch.zeros(6)))
    torn = State(**{**vars(full), "pieces": pieces})
    saver = saving(tmp_path, alone)
    saver.save(1, torn, {"samples": 1}, periodic=False, score=None)
    assert_refused(tmp_path / "last", rf"{kind} of odd\|name is incomplete")


FROZEN = "weight|frozen|0"


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table[FROZEN].update(data_offsets=[0, 20]),
        lambda table: table[FROZEN].update(shape=[2**40]),
        lambda table: table[FROZEN].update(dtype="F16", shape=[10]),
        lambda table: table.update({"weight|frozen|-1": table.pop(FROZEN)}),
        lambda table: table["__metadata__"].update(steps='{"embed.weight": NaN}'),
        lambda table: table["__metadata__"].update(steps='{"nothing": 1.0}'),
        lambda table: table["__metadata__"].pop("steps"),
    ],
)
def test_a_tensor_file_that_contradicts_itself_is_refused_by_name(saved, change):
    table, numbers = head_of((saved / FILES[0]).read_bytes())
    change(table)
    replace_file(saved, FILES[0], with_head(json.dumps(table), numbers))
    assert_refused(saved, r"rank-00000\.safetensors is not part of")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        (2**40).to_bytes(8, "little") + b"{}",
        with_head('{"__metadata__": {"steps": "{}"}}', b"left over"),
        with_head("[" * 100_000),
        with_head('{"a": {}, "a": {}}'),
        with_head('{"weight|w|0": {"dtype": "F32", "shape": [1e9], "data_offsets": [0, 4]}}'),
        with_head(b"\xff\xfe"),
    ],
)
def test_an_invalid_tensor_file_is_refused_by_name(saved, content):
    replace_file(saved, FILES[0], content)
    assert_refused(saved, r"rank-00000\.safetensors")


def test_an_interval_is_read_across_the_files_it_lies_in(saved):
    flat = whole()["exp_avg_sq"]["embed.weight"].reshape(-1)
    read = open_checkpoint(saved).interval("exp_avg_sq", "embed.weight", 5, 60)
    assert bits(read) == bits(flat[5:60])
