"""Words of other tools and names of their models, and the lines that do the same here."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from engines.catalog import ENGINES
from launcher.base.diagnostics import OFF, PROGRAM, fold
from launcher.config import presets
from launcher.config.originals import all_words
from launcher.config.schema import PRETRAINED, config_of, setting_infos
from launcher.config.settings_file import node_value, read_settings_file
from models.catalog import FAMILIES

CONFIG = "config.json"
REMOVE = "remove it: "
_PLACEHOLDER = "FOLDER"
FOLDER = f" --set {PRETRAINED}={{folder}}"
_KEY = re.compile(r"--set ([\w.]+)=")
_HUB_ADDRESS = re.compile(
    r"(?:(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/|hf://)?(?:models/)?"
    r"(?P<id>[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?)"
    r"(?:(?:/(?:tree|blob|resolve)/|[@:])(?P<revision>[\w.-]+))?(?:/.*)?"
)
"""A model of the Hugging Face hub, as people copy it: with or without its revision."""
_HUB_NAME = re.compile(
    r"(distil|tiny|smol|open|deep)?-?(gpt|bert|roberta|llama|mistral|mixtral|qwen|opt|pythia|phi"
    r"|gemma|m?bart|m?t5|bloom|falcon|seek|lm|pegasus|vit|clip|electra|albert)[\w.-]*",
    re.IGNORECASE,
)
_WITHOUT_OWNER = re.compile(
    r"(distil)?gpt2(-\w+)?|openai-gpt|((distil|cam)?(ro)?berta?|t5|xlm|albert)-[\w-]+"
)
"""The oldest models of the hub, the only ones whose id has no owner."""
_SEQ2SEQ = re.compile(r"(bart|t5|pegasus|marian)", re.IGNORECASE)
"""Names of models with an encoder and a decoder, which family eeg_text takes."""
_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt"}
_VERY_CLOSE = 0.85
"""The similarity from which a typo of a word of another tool is that word; 1: the same."""
_TASK_METHODS = {"samples", "build", "measure"}


@cache
def table() -> Mapping[str, Any]:
    """The words by kind: commands, options, settings, values of settings. Reads the disk."""
    words: Mapping[str, Any] = node_value(read_settings_file(presets.FOLDER / "other_tools.yaml"))
    return words


def entry_of(kind: str, word: str) -> Mapping[str, Any] | None:
    """The entry of a command or an option, without regard to case, `-` and `_`."""
    name = fold(word)
    entries: Sequence[Mapping[str, Any]] = table()[kind]
    return next((e for e in entries if name in [fold(w) for w in e["words"]]), None)


def similar(flag: str) -> str | None:
    """The word of another tool or an original that `flag` is most like, if it is very much so."""
    import difflib  # slow to import, and only needed for errors

    words = [fold(word) for entry in table()["options"] for word in entry["words"]]
    words += [
        fold(name) for file in all_words().values() for word in file.words for name in word.names
    ]
    close = difflib.get_close_matches(fold(flag), words, n=1, cutoff=_VERY_CLOSE)
    return close[0] if close and close[0] != fold(flag) else None


def setting_of(key: str) -> str | None:
    """The setting here for a dotted key of another tool."""
    name = fold(key)
    settings: Mapping[str, Sequence[str]] = table()["settings"]
    return next((here for here, words in settings.items() if name in map(fold, words)), None)


def value_of(key: str, value: object) -> str | None:
    """The value here for a value that other tools have for the setting `key`; None: unknown."""
    values: Mapping[str, str] = table()["values"].get(key, {})
    text = str(value).lower()
    return next((here for there, here in values.items() if re.fullmatch(there, text)), None)


def option_line(
    flag: str, value_text: str | None, family: str | None, argv: Sequence[str] = ()
) -> str | None:
    """The options to type instead of `flag` of a command line `argv`; None: unknown.

    Or a text that begins with REMOVE, where nothing replaces it. Reads the disk.
    """
    word = flag.lstrip("-")
    if (named := named_option(word)) is not None:
        return named
    entry = entry_of("options", word)
    if entry is None:
        return None
    if (
        family == "event_seg"
        and "dataset" in entry["words"]
        and not Path(value_text or "").exists()
    ):
        return None  # there the option names a format
    line: str = entry.get("alone", entry["line"]) if value_text is None else entry["line"]
    is_switch = "alone" in entry and not line.startswith(REMOVE)
    if value_text is not None and value_text.lower() in OFF and is_switch:
        line = f"{REMOVE}off unless you ask for it"
    for pattern, other in entry.get("values", {}).items():
        if value_text is not None and re.fullmatch(pattern, value_text.lower()):
            line = other
    missing = (
        [key for key in _KEY.findall(line) if key not in setting_infos(family)]
        if (family in FAMILIES)
        else []
    )
    if missing:
        return f"{REMOVE}{family} has no setting {missing[0]}"
    lines = [*argv, model_line(model_typed(argv) or "") or ""]
    if any(f"{PRETRAINED}=" in text for text in lines):
        line = line.replace(FOLDER, "")
    if value_text is not None and line == f"--set {PRETRAINED}={{value}}":
        return pretrained_line(value_text)
    if value_text is not None and line.startswith("--nproc") and "," in value_text:
        count = len([part for part in value_text.split(",") if part.strip()])
        return f"--nproc {count}  after  export CUDA_VISIBLE_DEVICES={value_text}"
    return filled(line, value_text)


def filled(line: str, value_text: str | None = None, **more: str) -> str:
    """A line of the table with its values."""
    folder = pretrained_folder() if "{folder}" in line else ""
    remark = f"  {_PLACEHOLDER}: that of a model of transformers" if folder == _PLACEHOLDER else ""
    value = "VALUE" if value_text is None else shlex.quote(value_text)
    return line.format(value=value, folder=folder, **more) + remark


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


def pretrained_folder() -> str:
    """A folder here with a pretrained model; without one, a placeholder. Reads the disk."""
    for path in (Path(), *sorted(Path().iterdir())):
        if _model_type(path / CONFIG) is not None:
            return shlex.quote(str(path))
    return _PLACEHOLDER


def pretrained_line(name: str) -> str:
    """The option for the pretrained model `name`: a folder, its config.json, or a name of a hub."""
    path = Path(name).expanduser()
    folder = path.parent if path.is_file() else path
    if folder.is_dir():
        family = "--model eeg_text " if _is_seq2seq(folder / CONFIG) else ""
        return f"{family}--set {PRETRAINED}={shlex.quote(str(folder))}"
    address = _HUB_ADDRESS.fullmatch(name)
    whole, revision = (name, None) if address is None else address.group("id", "revision")
    target = shlex.quote(Path(whole).name)
    if "/" not in whole and not _WITHOUT_OWNER.fullmatch(whole):
        whole = f"OWNER/{whole}"
    family = "--model eeg_text " if _SEQ2SEQ.search(whole) else ""
    at = f" --revision {shlex.quote(revision)}" if revision else ""
    return (
        f"hf download {shlex.quote(whole)}{at} --local-dir {target}  and then  "
        f"{family}--set {PRETRAINED}={target}"
    )


def is_hub_address(name: str) -> bool:
    """Whether `name` is a URL or OWNER/NAME of a model of the hub. Reads the disk."""
    address = _HUB_ADDRESS.fullmatch(name)
    is_typical = address is not None and ("/" in address["id"] or "://" in name)
    is_local = Path(name).expanduser().parent.exists() and "://" not in name
    return is_typical and not is_local and ".py" not in name


def model_typed(argv: Sequence[str]) -> str | None:
    """The value of --model in a command line."""
    for argument, following in zip(argv, [*argv[1:], ""], strict=False):
        flag, is_joined, value = argument.partition("=")
        if flag == "--model":
            return value if is_joined else following
    return None


def meant(line: str) -> str:
    """The option or the command that a line to type is about, without its value."""
    parts = line.split("  ")
    options = next((part for part in parts if part.startswith("--")), parts[0])
    return re.split(r" (?=--)|=", options)[0]


def model_line(name: str) -> str | None:
    """The options to type instead of `--model NAME`, which is no model here. Reads the disk."""
    path = Path(name).expanduser()
    if path.suffix == ".py":
        return script_line(path)
    if path.exists():
        return path_line(path)
    if name.startswith((".", "/", "~")):
        return None
    if is_hub_address(name) or _HUB_NAME.fullmatch(name):
        return pretrained_line(name)
    module, _, task = name.rpartition(".")
    for script in filter(None, (name, module)):
        path = Path(f"{script.replace('.', '/')}.py")
        if path.is_file() and _task_class(path) is not None:
            return script_line(path) if script == name else f"--model {module}:{task}"
    return named_option(name)


def path_line(path: Path) -> str:
    """The option that takes an existing file or folder. Reads the disk."""
    quoted = shlex.quote(str(path))
    if path.suffix == ".py":
        return script_line(path)
    if (path / "settings.yaml").is_file() and (path / "origins.json").is_file():
        return f"--resume {quoted}"
    if _model_type(path / CONFIG) is not None or _model_type(path) is not None:
        return pretrained_line(str(path))
    if path.suffix in _WEIGHTS and _model_type(path.parent / CONFIG) is not None:
        return pretrained_line(str(path))
    if path.suffix in (".yaml", ".yml"):
        return f"--config {quoted}"
    return f"--data {quoted}"


def script_line(path: Path) -> str:
    """The option for the class of a custom task in a script; without one, how to write one."""
    if (name := _task_class(path)) is not None:
        is_below = not path.is_absolute() and ".." not in path.parts
        module = ".".join(path.with_suffix("").parts) if is_below else path.stem
        folder = "" if is_below else f" --set model.folder={shlex.quote(str(path.parent))}"
        return f"--model {module}:{name}{folder}"
    stem = re.sub(r"\W", "_", path.stem)
    return f"{PROGRAM} new-task {stem}_task  and move the model and the data of {path.name} there"


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


def _config(path: Path) -> Mapping[str, Any]:
    try:
        values = json.loads(path.read_bytes()) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _model_type(path: Path) -> str | None:
    """The kind of model that the config.json of transformers at `path` describes."""
    kind = _config(path).get("model_type") if path.name == CONFIG else None
    return kind if isinstance(kind, str) else None


def _is_seq2seq(path: Path) -> bool:
    values = _config(path)
    return bool(values.get("is_encoder_decoder") or _SEQ2SEQ.search(_model_type(path) or ""))
