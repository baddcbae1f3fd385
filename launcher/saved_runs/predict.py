"""Predictions of a trained model: for files in a format of its family, or text after prompts."""

from __future__ import annotations

import importlib
import math
import os
import re
import shlex
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gearshift.launcher.base import signals
from gearshift.launcher.base.diagnostics import PROGRAM, Diagnostic, SettingsError, counted, invalid
from gearshift.launcher.base.signals import handling
from gearshift.launcher.config.command_line import INPUT
from gearshift.launcher.config.custom_task import class_location
from gearshift.launcher.run_folder import run_folder
from gearshift.launcher.saved_runs.saved_model import SavedModel, open_model
from gearshift.models.base import (
    DataError,
    GeneratesText,
    Message,
    Prediction,
    PredictsFiles,
    Prompt,
    Sampling,
    Task,
)
from gearshift.models.catalog import FAMILIES
from gearshift.training.callbacks.base import Json
from gearshift.training.logging.encoding import encode, printable
from gearshift.training.storage import atomic_write, storage_errors

if TYPE_CHECKING:
    from torch.nn import Module

_NAME = re.compile(r"\w[\w.-]*")


SAMPLING: Mapping[str, tuple[type[int] | type[float], float, float, str]] = {
    "--max-tokens": (int, 1, math.inf, "a whole number, at least 1"),
    "--temperature": (float, 0, sys.float_info.max, "a number, at least 0"),
    "--top-p": (float, math.ulp(0), 1, "a number above 0, at most 1"),
    "--top-k": (int, 1, math.inf, "a whole number, at least 1"),
    "--seed": (int, 0, 2**63 - 1, "a whole number, at least 0"),
}
"""The options that set the fields of Sampling: type, least and most, and values in words."""


def sampling(values: Mapping[str, str]) -> tuple[Sampling, list[Diagnostic]]:
    """The values of the sampling options, and an error for each invalid one."""
    fields: Json = {}
    diagnostics = []
    for flag, (parse, least, most, allowed) in SAMPLING.items():
        text = values.get(flag)
        if text is None:
            continue
        with suppress(ValueError):
            number = parse(text)
            if least <= number <= most:
                fields[flag.removeprefix("--").replace("-", "_")] = number
                continue
        diagnostics.append(invalid(flag, text, allowed))
    return Sampling(**fields), diagnostics


@dataclass(frozen=True)
class Predictor:
    """A trained model that is not loaded yet, and the task that predicts with it."""

    saved: SavedModel
    device: str
    task: Task

    @property
    def default_folder(self) -> Path:
        """The folder of predictions without --out."""
        return self.saved.folder / run_folder.PREDICTIONS

    def load(self) -> Module:
        """The model on its device. Raises DataError."""
        return self.saved.load(self.task).to(self.device)

    def as_json(self, folder: Path | None, results: Sequence[Result]) -> Json:
        """The facts to print."""
        return {
            "checkpoint": str(self.saved.path),
            "step": self.saved.step,
            "weights": self.saved.kind,
            "device": self.device,
            "folder": folder and str(folder),
            "predictions": [asdict(result) for result in results],
        }


def open_predictor(argument: str, name: str | None, sets: Sequence[str] = ()) -> Predictor:
    """The model that `argument` names, see saved_model.open_model. Imports torch.

    Raises SettingsError, also for a task that cannot predict; CheckpointError.
    """
    saved = open_model(argument, name, "predict", sets)
    from gearshift.engines.device import pick_device  # with torch

    device = pick_device("auto").type
    task = saved.task(device)
    if isinstance(task, PredictsFiles | GeneratesText):
        return Predictor(saved, device, task)
    raise SettingsError.of(
        f"a model of '{saved.family}' cannot be used for predictions",
        value=saved.family,
        where=class_location(type(task)),
        allowed="a task with saved_files, setup_without_data(), and predict(model, path), "
        "which yields gearshift.Prediction",
    )


def files(argument: str | None, family: str, run: str) -> Path:
    """The existing file or folder of --input; `run` as typed. Reads the disk.

    Raises SettingsError.
    """
    allowed = "a file or folder"
    if family in FAMILIES:
        formats = importlib.import_module(FAMILIES[family].formats).FORMATS
        allowed += f": {'; '.join(formats)}"
    if argument is None:
        raise SettingsError.of(
            f"predict requires {INPUT} for a model of '{family}'",
            key=INPUT,
            where="command line: predict",
            allowed=allowed,
            hint=f"{PROGRAM} predict {shlex.quote(run)} {INPUT} FILE",
        )
    if not exists(argument):
        raise _missing(argument, allowed)
    return Path(argument).expanduser()


def prompts(argument: str, task: GeneratesText) -> list[Prompt]:
    """The prompts of --input: those of a file, or the text itself. Reads the disk.

    Raises SettingsError for a text that looks like a path that does not exist, DataError.
    """
    path = Path(os.path.expanduser(argument))
    if exists(argument):
        return list(task.prompts(path))
    # A sentence may name paths, and end in a file name.
    is_word = not re.search(r"\s", argument)
    if is_word and ("/" in argument or path.suffix.lower() in task.prompt_suffixes):
        raise _missing(argument, "a file with prompts; a text that is no path")
    return [text_prompt(argument)]


def stem(argument: str) -> str:
    """The name of the results of a file, without a suffix."""
    return re.sub(r"[^\w.-]+", "-", Path(argument).stem)


def text_prompt(text: str, before: tuple[Message, ...] = ()) -> Prompt:
    """The prompt of a text that a person typed, after the messages `before`."""
    return Prompt("prompt", (*before, Message("user", text)))


def _missing(argument: str, allowed: str) -> SettingsError:
    return SettingsError.of(
        f"{INPUT} '{argument}' does not exist",
        key=INPUT,
        value=argument,
        where=f"command line: {INPUT} {argument}",
        allowed=allowed,
    )


def exists(argument: str) -> bool:
    """Whether there is a file or folder of this name, which may be any text. Reads the disk."""
    return os.path.exists(os.path.expanduser(argument))


@dataclass(frozen=True)
class Result:
    """One prediction, as it is reported."""

    name: str
    text: str
    files: tuple[str, ...] = ()
    dropped_tokens: int = 0
    """Tokens of the prompt that did not fit into the context of the model."""


def check_numbers(values: Mapping[str, str], family: str) -> None:
    """Raise SettingsError for options of Sampling: the family generates no text."""
    for flag in SAMPLING:
        if flag in values:
            raise SettingsError.of(
                f"{flag} is an option of generated text; '{family}' generates none",
                key=flag,
                value=values[flag],
                where=f"command line: {flag} {values[flag]}",
            )


def prepare(
    inputs: Sequence[str], task: Task, family: str, run: str, values: Mapping[str, str]
) -> list[Prompt] | list[Path]:
    """The prompts, or the files, of several inputs; `values`: the options of Sampling.

    Reads the disk. Raises SettingsError, DataError.
    """
    if isinstance(task, GeneratesText):
        return [prompt for text in inputs for prompt in prompts(text, task)]
    check_numbers(values, family)
    return [files(path, family, run) for path in inputs]


def of_prepared(
    prepared: Sequence[Prompt | Path], task: Task, model: Module, sampling: Sampling
) -> Iterator[Prediction]:
    """The predictions for what `prepare` gave. Raises DataError."""
    import torch

    for source in prepared:
        if isinstance(source, Prompt):
            assert isinstance(task, GeneratesText)
            dropped = task.dropped_tokens(source, sampling)
            if dropped:
                warnings.warn(
                    f"left out the oldest {counted(dropped, 'token')} of {source.name}: "
                    "the context of the model is full",
                    stacklevel=3,
                )
            yield Prediction(source.name, "".join(task.generate(model, source, sampling)))
        else:
            assert isinstance(task, PredictsFiles)
            with torch.no_grad():
                yield from task.predict(model, source)


def shown(parts: Iterator[str]) -> Iterator[str]:
    """The parts of a text, each printed as it comes."""
    for part in parts:
        print_text(part, end="")
        yield part


def print_text(text: str, end: str = "\n") -> None:
    """Print `text` without terminal control codes."""
    encoding = sys.stdout.encoding or "utf-8"
    # A file may have an encoding without the characters of the model.
    print(printable(text).encode(encoding, "replace").decode(encoding), end=end, flush=True)


def converse(task: GeneratesText, model: Module, sampling: Sampling) -> None:
    """Continue or answer what a person types, until Ctrl-D. Ctrl-C stops the text."""
    with suppress(ImportError):  # not on Windows
        import readline  # noqa: F401  `input` then edits lines
    history: tuple[Message, ...] = ()
    # Ctrl-C raises an exception here, which ends the text; the program goes on.
    with handling([signal.SIGINT], signal.default_int_handler):
        while True:
            try:
                text = input("> ")
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                text = "\n"
                print()
            if not text.strip():
                continue
            prompt = text_prompt(text, history)
            answer = ""
            with suppress(KeyboardInterrupt):
                for part in shown(task.generate(model, prompt, sampling)):
                    answer += part
            print()
            if task.answers_requests():
                history = (*prompt.messages, Message("assistant", answer))


@dataclass
class ResultFolder:
    """The files of predictions, each complete as soon as it has its name in `path`."""

    path: Path
    names: set[str] = field(default_factory=set)
    _lines: bytes = b""

    def write(self, prediction: Prediction) -> tuple[str, ...]:
        """Write the files of one prediction; their names.

        Raises StorageError, and DataError for a name that is invalid or was given before.
        """
        names = [f"{prediction.name}{suffix}" for suffix in prediction.files]
        for name in names:
            # Names come from the task, which may be a custom one: none may leave the folder.
            if name in self.names or not _NAME.fullmatch(name):
                raise DataError(
                    f"the file name {name!r} of a prediction is not valid, or is written twice",
                    where="predict() of the task",
                    allowed="a name of its own of letters, digits, '-', '_' and '.' for each",
                )
        for name, content in zip(names, prediction.files.values(), strict=True):
            self._put(name, content)
        return tuple(names)

    def add_text(self, name: str, prompt: Prompt, result: Result) -> Result:
        """Add a text to the file `name`.jsonl; the result with that file. Raises StorageError."""
        file = f"{name}.jsonl"
        line = encode(
            {
                "name": result.name,
                "prompt": [{"role": m.role, "content": m.text} for m in prompt.messages],
                "text": result.text,
            }
        )
        self._lines += line.encode() + b"\n"
        self._put(file, self._lines)
        return replace(result, files=(file,))

    def _put(self, name: str, content: bytes) -> None:
        with storage_errors(self.path / name):
            self.path.mkdir(parents=True, exist_ok=True)
            atomic_write(self.path / name, content)
        self.names.add(name)
        signals.leave(f"{counted(len(self.names), 'complete file')} in {self.path}")
