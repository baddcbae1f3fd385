"""Run folders in the state that runs leave them in, made without training."""

import json
import os

from gearshift.launcher.config import paths
from gearshift.launcher.run_folder import run_folder
from gearshift.training.checkpoint import manifest, tensor_file
from gearshift.training.checkpoint.manifest import Manifest
from gearshift.training.logging.encoding import encode_bytes

NAME = "x"


def begun(folder, resolved, at=0):
    """A run started with `resolved`, `at` seconds after the epoch."""
    run_folder.create(resolved, folder, NAME)
    os.utime(folder / run_folder.SETTINGS, (at, at))
    return folder


def saved(folder, step, resolved, facts=None):
    """A checkpoint of a run, without a tensor; `facts` replaces those of state.json, or all of it."""
    checkpoint = folder / run_folder.CHECKPOINTS / manifest.step_folder(step)
    checkpoint.mkdir(parents=True)
    settings = paths.kept_values(resolved.values)
    nothing = {"shapes": {}, "buffers": {}, "groups": [], "loss_scale": {}}
    facts = {"settings": settings} if facts is None else facts
    content = facts if isinstance(facts, bytes) else encode_bytes({**nothing, "facts": facts})
    files = {
        manifest.STATE: content,
        manifest.rank_file(0): tensor_file.file_head({}, {"steps": "{}"}),
    }
    listed = tuple(
        manifest.write_file(checkpoint / name, [content]) for name, content in files.items()
    )
    content = {
        "step": step,
        "samples": step * 8,
        "engine": "local",
        "world_size": 1,
        "periodic": True,
    }
    write_manifest(checkpoint, Manifest(**content, libraries={}, files=listed))
    return checkpoint


def write_manifest(checkpoint, content):
    """The manifest of a checkpoint with its checksum."""
    for name, data in zip(
        (manifest.NAME, manifest.CHECKSUM_NAME), manifest.render(content), strict=True
    ):
        (checkpoint / name).write_bytes(data)


def trained(folder, resolved, *steps, at=0):
    """A run with checkpoints of `steps`."""
    begun(folder, resolved, at)
    for step in steps:
        saved(folder, step, resolved)
    for link in run_folder.LINKS if steps else ():
        name = manifest.step_folder(max(steps))
        (folder / link).symlink_to(f"{run_folder.CHECKPOINTS}/{name}")
    return folder


def ended(folder, status, steps, **facts):
    """A run that has ended, with further `facts` in its result."""
    result = {"status": status, "steps": steps, "epochs": 1.0, "wall_s": 2.0, "best": None}
    result |= {"samples_per_s": 3.0, "peak_memory_bytes": {"host": 4}} | facts
    (folder / run_folder.RESULT).write_text(json.dumps(result))
    return folder
