"""Saved runs, and ways to damage them."""

import hashlib
import json
import zlib

from safetensors import safe_open
from safetensors.torch import load_file, save_file

import launcher
from tests.runs.conftest import REQUESTS
from training.checkpoint.manifest import BLOCK_BYTES

SETTINGS = {
    "train.max_steps": 6,
    "train.preview": False,
    "train.global_batch": 4,
    "train.micro_batch": 2,
    "train.ema": 0.9,
    "eval.every": 3,
    "log.every": 2,
    "save.every": 2,
    "save.keep_last": 3,
    "save.keep_best": 0,
}


def train(folder, **settings):
    """A run of six steps that saved after each second one, in `folder`/run."""
    (folder / "mine.jsonl").write_text(REQUESTS)
    run = launcher.train(
        model="language:tiny",
        settings={"data.path": str(folder / "mine.jsonl"), **SETTINGS, **settings},
        out=folder / "run",
        console=False,
    )
    assert run.folder is not None
    return run.folder


def checkpoint(run, step):
    """The folder of a checkpoint."""
    return run / "checkpoints" / f"step-{step:08d}"


def contents(folder):
    """The content of a folder, links with their target."""
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def flip_a_bit(checkpoint):
    """Damage the tensors of a checkpoint: the changed file."""
    path = checkpoint / "rank-00000.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return path


def change_tensor(folder, key, change):
    """Change one stored interval of a checkpoint, and all checksums with it."""
    for path in sorted(folder.glob("rank-*.safetensors")):
        tensors = load_file(path)
        if key in tensors:
            with safe_open(path, "pt") as opened:
                metadata = opened.metadata()
            change(tensors[key])
            save_file(tensors, path, metadata)
            update_manifest(folder, path.name)


def change_state(folder, change):
    """Change the state of a checkpoint besides tensors, and all checksums with it."""
    path = folder / "state.json"
    state = json.loads(path.read_text())
    change(state)
    path.write_text(json.dumps(state))
    update_manifest(folder, path.name)


def update_manifest(folder, name):
    """Update the manifest for the current content of a file."""
    data = (folder / name).read_bytes()
    fields = json.loads((folder / "manifest.json").read_text())
    file = next(file for file in fields["files"] if file["name"] == name)
    blocks = range(0, len(data), BLOCK_BYTES)
    file["bytes"] = len(data)
    file["crc32"] = [zlib.crc32(data[at : at + BLOCK_BYTES]) for at in blocks]
    content = json.dumps(fields).encode()
    (folder / "manifest.json").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    (folder / "manifest.sha256").write_text(f"{digest}  manifest.json\n")
