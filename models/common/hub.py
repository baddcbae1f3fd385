"""Names of models of the Hugging Face hub, and their folders in its cache."""

from __future__ import annotations

from pathlib import Path

HUB = "hf:"
"""How the name of a model of the hub begins: `hf:OWNER/NAME@COMMIT`."""
_COMMITS = "snapshots"


def name_of(folder: Path) -> str:
    """The name of a folder; of one in the cache of the hub, that of its model."""
    if folder.parent.name != _COMMITS:
        return folder.name
    return folder.parent.parent.name.rpartition("--")[2]


def folder_of(name: str) -> Path:
    """The folder that a value of model.pretrained names; of the hub, a commit in the cache.

    Reads neither the network nor the disk: who starts the ranks has downloaded it.
    """
    if not name.startswith(HUB):
        return Path(name).expanduser()
    from huggingface_hub.constants import HF_HUB_CACHE

    model, _, commit = name.removeprefix(HUB).partition("@")
    return Path(HF_HUB_CACHE, f"models--{model.replace('/', '--')}", _COMMITS, commit)
