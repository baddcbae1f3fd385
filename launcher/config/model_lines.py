"""What people type instead of the name of a model, and the options that do what they mean."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engines.catalog import ENGINES
from launcher.base.diagnostics import PROGRAM, fold
from launcher.base.disk import problem_of
from launcher.config import presets
from launcher.config.schema import PRETRAINED, config_of
from models.catalog import FAMILIES
from models.common.hub import HUB

CONFIG = "config.json"
_HUB = re.compile(
    r"(?P<host>(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/|hf:(?://)?)?(?:models/)?"
    r"(?P<id>[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?)"
    r"(?:(?:/(?:tree|blob|resolve)/|[@:])(?P<revision>[\w.-]+))?(?:/.*)?"
)
"""A model of the Hugging Face hub, as people copy it: with or without its revision."""
_HUB_NAME = re.compile(
    r"(distil|tiny|smol|open|deep|cam)?-?(gpt|bert|roberta|llama|mistral|mixtral|qwen|opt|pythia|phi"
    r"|gemma|m?bart|m?t5|bloom|falcon|seek|lm|pegasus|vit|clip|electra|albert)[\w.-]*",
    re.IGNORECASE,
)
_WITHOUT_OWNER = re.compile(
    r"(distil)?gpt2(-\w+)?|openai-gpt|((distil|cam)?(ro)?berta?|t5|xlm|albert)-[\w-]+"
)
"""The oldest models of the hub, the only ones whose id has no owner."""
_BART = re.compile(r"(?<!m)bart", re.IGNORECASE)
"""Names of models whose decoder family eeg_text takes."""
_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt"}
_SUFFIXES = {".sbatch", ".yaml", ".yml", ".json", ".jsonl", ".txt", ".csv"}
"""Of files, which may not exist."""
_TASK_METHODS = {"samples", "build", "measure"}


def hub_address(name: object) -> re.Match[str] | None:
    """The `id` and `revision` of a model of the hub; None: `name` is no address, or local.

    Reads the disk.
    """
    address, path = _HUB.fullmatch(str(name)), Path(str(name)).expanduser()
    if address is None or address["host"]:
        return address
    is_local = path.exists() or (path.parent != Path() and path.parent.exists())
    if path.suffix in _SUFFIXES:
        return None
    is_typical = "/" in address["id"] or _HUB_NAME.fullmatch(address["id"])
    return address if is_typical and not is_local and ".py" not in str(name) else None


def fetched(name: object, line: Callable[[str], str]) -> str:
    """The `line` with the folder of a model, or with its name on the hub. Reads the disk."""
    address = hub_address(name)
    if address is None:
        return line(str(name))
    whole, revision = address.group("id", "revision")
    if "/" not in whole and not _WITHOUT_OWNER.fullmatch(whole):
        whole = f"OWNER/{whole}"
    return line(f"{HUB}{whole}" + (f"@{revision}" if revision else ""))


def pretrained_line(name: str) -> str:
    """The option for a pretrained model: a folder, its config.json, or a name of the hub.

    The family of the model is named if it is not the default. Reads the disk.
    """
    path = Path(name).expanduser()
    path = path.parent if path.is_file() else path
    name = str(path) if path.is_dir() else name
    values = _config(path / CONFIG)
    kind = str(values.get("model_type")) if path.is_dir() else name
    option = "--model eeg_text " if _BART.search(kind) else ""
    return fetched(name, lambda folder: f"{option}--set {PRETRAINED}={shlex.quote(folder)}")


def named_option(word: str) -> str | None:
    """`--mode gentle` for the name of a mode, likewise for an engine, a family and a size."""
    names = [(f"--mode {mode}", mode) for mode in presets.modes()]
    names += [(f"--engine {engine}", engine) for engine in ENGINES]
    names += [(f"--model {family}", family) for family in FAMILIES]
    names += [
        (f"--model {family}:{size}", name)
        for family in sorted(FAMILIES, key=lambda name: name != "language")
        for size in config_of(family).SIZES
        for name in (f"{family}:{size}", size)
    ]
    return next((line for line, name in names if fold(name) == fold(word)), None)


def model_line(name: str) -> str | None:
    """The options to type instead of `--model NAME`, which is no model here. Reads the disk."""
    if problem_of(name):
        return None
    path = Path(name).expanduser()
    if path.exists() or path.suffix == ".py":
        return path_line(path)
    if name.startswith((".", "/", "~")):
        return None
    if hub_address(name) is not None:
        return pretrained_line(name)
    module, _, task = name.rpartition(".")
    for script in filter(None, (name, module)):
        path = Path(f"{script.replace('.', '/')}.py")
        if path.is_file() and _task_class(path) is not None:
            return path_line(path) if script == name else f"--model {module}:{task}"
    return named_option(name)


def path_line(path: Path) -> str:
    """The option that takes a file or folder; for a script without a task, how to write one.

    Reads the disk.
    """
    quoted = shlex.quote(str(path))
    if path.suffix == ".sbatch":
        return f"sbatch {quoted}"
    if path.suffix == ".py":
        if (name := _task_class(path)) is None:
            stem = re.sub(r"\W", "_", path.stem)
            what = f"the model and the data of {path.name}"
            return f"{PROGRAM} new-task {stem}_task  and move {what} there"
        is_below = not path.is_absolute() and ".." not in path.parts
        module = ".".join(path.with_suffix("").parts) if is_below else path.stem
        folder = "" if is_below else f" --set model.folder={shlex.quote(str(path.parent))}"
        return f"--model {module}:{name}{folder}"
    if is_run(path):
        return f"--resume {quoted}"
    is_part = path.suffix in _WEIGHTS or path.name == CONFIG
    if _is_pretrained(path.parent if is_part else path):
        return pretrained_line(str(path))
    if path.suffix in (".yaml", ".yml"):
        return f"--config {quoted}"
    return f"--data {quoted}"


def is_run(path: Path) -> bool:
    """Whether `path` is the folder of a run. Reads the disk."""
    return (path / "settings.yaml").is_file() and (path / "origins.json").is_file()


def _task_class(path: Path) -> str | None:
    """The last class of a script that looks like a custom task. Reads the disk, runs nothing."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return None
    tasks = [
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        and {item.name for item in node.body if isinstance(item, ast.FunctionDef)} >= _TASK_METHODS
    ]
    return tasks[-1] if tasks else None


def _is_pretrained(folder: Path) -> bool:
    return isinstance(_config(folder / CONFIG).get("model_type"), str)


def _config(path: Path) -> Mapping[str, Any]:
    try:
        values = json.loads(path.read_bytes()) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
