"""Saved runs, and ways to damage them."""

import json
from dataclasses import replace

from safetensors import safe_open
from safetensors.torch import load_file, save

import gearshift
from gearshift.training.checkpoint import manifest
from tests.launcher.runs import write_manifest
from tests.runs.conftest import REQUESTS

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
    run = gearshift.train(
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
        str(path.relative_to(folder)): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
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
            replace_file(path, save(tensors, metadata))


def change_state(folder, change):
    """Change the state of a checkpoint besides tensors, and all checksums with it."""
    state = json.loads((folder / "state.json").read_text())
    change(state)
    replace_file(folder / "state.json", json.dumps(state).encode())


def replace_file(path, data):
    """Replace a file of a checkpoint, and its entry in the manifest."""
    before = manifest.read(path.parent)
    path.unlink()
    file = manifest.write_file(path, [data])
    files = tuple(file if old.name == path.name else old for old in before.files)
    write_manifest(path.parent, replace(before, files=files))
