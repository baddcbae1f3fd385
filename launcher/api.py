"""Training from Python, and a run as an object: its metrics, model, predictions and exports."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gearshift.launcher.base import exit_codes
from gearshift.launcher.base.diagnostics import (
    CommandFailed,
    Diagnostic,
    SettingsError,
    render,
    say,
)
from gearshift.launcher.commands import evaluate as evaluate_command
from gearshift.launcher.commands import run as run_command
from gearshift.launcher.config import custom_task
from gearshift.launcher.config.errors import about_data
from gearshift.launcher.config.input_errors import text_of
from gearshift.launcher.config.provenance import CliArgs
from gearshift.launcher.config.settings_file import flat
from gearshift.launcher.report.watched_run import WatchedRun
from gearshift.launcher.run.run_end import RunEnd
from gearshift.launcher.run_folder import checkpoint_search, run_folder
from gearshift.launcher.run_folder.reader import RunReader
from gearshift.launcher.saved_runs import export, predict, saved_model
from gearshift.launcher.saved_runs.saved_model import find_saved
from gearshift.launcher.stages.pipeline import summarize
from gearshift.models.base import DataError, Prediction
from gearshift.training.callbacks.base import Facts, Json
from gearshift.training.checkpoint.manifest import CheckpointError
from gearshift.training.storage import StorageError

if TYPE_CHECKING:
    from torch.nn import Module

Paths = str | PathLike[str] | Sequence[str | PathLike[str]]


class RunError(Exception):
    """The run failed; the message names the rank, its host and its error."""


@dataclass(frozen=True)
class Run:
    """A run: what `train` and `open_run` return."""

    status: str
    """completed, or stopped by a signal after saving; see also `open_run`."""
    reason: str
    """Why the run ended."""
    steps: int
    """Optimizer steps taken."""
    epochs: float | None
    """Passes over the training data, as a fraction; None: no result yet."""
    wall_s: float | None
    """Wall-clock seconds; None: no result yet."""
    best: Mapping[str, float | str | int] | None
    """The best evaluation: metric, value and step; None: no evaluation."""
    samples_per_s: float | None
    """Over all ranks; None: no step was taken."""
    peak_memory_bytes: Mapping[str, int | None]
    """Of `device` (None on a CPU) and `host`, of the rank with the highest peak."""
    timing: Mapping[str, float] | None
    """Step times, with `train.timing`; None: not measured."""
    folder: Path | None
    """None on ranks other than 0 of torchrun or srun."""
    experience: Facts | None = None
    """Continual learning: the newest experience, with metrics on old and new data."""
    test: Facts | None = None
    """With `eval.test`: the metrics of the test split, and the step of the weights."""
    time_split: Mapping[str, float] | None = None
    """Seconds of the run by part, as in result.json; None: not measured, or with stages."""
    stages: Mapping[str, Path] = field(default_factory=dict)
    """The run folder of each stage of staged training, by name."""

    def metrics(self, kind: str | None = None) -> list[Json]:
        """The lines of metrics.jsonl: of `kind` "train" or "eval", or all. Reads the disk.

        With stages, the lines of all stages in order. Raises SettingsError for another kind, and
        if a line is damaged.
        """
        if kind not in ("train", "eval", None):
            raise SettingsError.of(
                f"unknown kind {kind!r}",
                value=kind,
                where=f"Run.metrics({kind!r})",
                allowed="'train', 'eval', None",
            )
        if self.folder is None:
            return []
        lines = []
        for folder in self.stages.values() or [self.folder]:
            for line in RunReader(folder).metrics():
                if kind in (None, line["kind"]):
                    lines.append(line)
        return lines

    def model(self, checkpoint: str | int | None = None) -> Module:
        """The trained model on the CPU, in evaluation mode, with its EMA if the run has one.

        `checkpoint` is "best", "last" or a step; by default the best one, or else the last. With
        stages, the model of the last stage. Reads the disk, and the data if the task does not work
        without it. Raises SettingsError if this rank has no folder or there is no such checkpoint,
        and RunError if it is damaged.
        """
        with _errors("Run.model"):
            saved = saved_model.open_model(self._require_folder(), _name(checkpoint), "model")
            return saved.load(saved.task("cpu"))

    def resume(
        self,
        engine: str | None = None,
        *,
        nproc: int | None = None,
        config: Paths = (),
        out: str | PathLike[str] | None = None,
        settings: Facts | None = None,
        console: bool = True,
        reset: str | Sequence[str] = (),
    ) -> Run:
        """Train on from the last checkpoint; the arguments are those of `gearshift.train`.

        With `out` in a new folder, without it in this one. Raises as `gearshift.train` does.
        """
        # The arguments of this method have the names of those of `train`.
        return train({**locals(), "resume": self._require_folder()}, "Run.resume")

    def evaluate(
        self,
        split: str = "val",
        checkpoint: str | int | None = None,
        *,
        engine: str | None = None,
        nproc: int | None = None,
        data: str | PathLike[str] | None = None,
    ) -> Json:
        """Measure a checkpoint on the split "train", "val" or "test", in new processes.

        `checkpoint`: see `model`; `engine`, `nproc` and `data` are by default those of the run.
        Gives `metrics`, `samples`, `step`, `weights`, `seconds` and more, which evaluations.jsonl
        and the report get, too. Raises SettingsError, and RunError if nothing was measured.
        """
        path = _name(data)
        options = {"data.path": ("--data", path)} if path else {}
        args = CliArgs(engine=engine, options=options | _processes(nproc))
        with _errors("Run.evaluate"):
            run = str(self._last_stage())
            facts, _ = evaluate_command.measure(run, split, _name(checkpoint), args)
        return facts

    def predict(
        self,
        inputs: Paths,
        checkpoint: str | int | None = None,
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        seed: int | None = None,
    ) -> list[Prediction]:
        """The predictions for `inputs`: files, folders, or texts after which text is generated.

        One input or a list of them, as the command `predict` takes them; a file may give several
        predictions. Each has a `name`, a `text`, and `files`, the content of the files that the
        command would write, by suffix. `checkpoint`: see `model`. The numbers are for generated
        text, as the options of `predict`. Writes nothing. Raises SettingsError and RunError.
        """
        numbers = (max_tokens, temperature, top_p, top_k, seed)
        options = zip(predict.SAMPLING, numbers, strict=True)
        values = {flag: str(number) for flag, number in options if number is not None}
        with _errors("Run.predict"):
            sampling, invalid = predict.sampling(values)
            if invalid:
                raise SettingsError(invalid)
            folder = self._require_folder()
            predictor = predict.open_predictor(folder, _name(checkpoint))
            task = predictor.task
            prepared = predict.prepare(
                list(map(str, _listed(inputs))), task, predictor.saved.family, folder, values
            )
            return list(predict.of_prepared(prepared, task, predictor.load(), sampling))

    def export(
        self,
        format: str,
        out: str | PathLike[str] | None = None,
        checkpoint: str | int | None = None,
    ) -> Path:
        """Write the model for other programs; the folder, by default export-FORMAT in the run's.

        `format` is "hf", "safetensors", "adapter" or "onnx"; `checkpoint`: see `model`.
        Raises SettingsError, and RunError if a checkpoint is damaged, the disk is full, or an ONNX
        graph gives other outputs than the model.
        """
        with _errors("Run.export"):
            invalid = export.invalid_format(format)
            if invalid:
                raise SettingsError(invalid)
            facts = export.write(
                find_saved(str(self._last_stage()), "export"),
                _name(checkpoint),
                format,
                _path(out),
                where="the default of out" if out is None else f"--out {out}",
            )
            return Path(facts["folder"])

    def _require_folder(self) -> str:
        """The run folder. Raises SettingsError on ranks that have none."""
        if self.folder is None:
            raise SettingsError.of(
                "this process has no run folder, from which the model is loaded",
                allowed="rank 0 of torchrun or srun",
            )
        return str(self.folder)

    def _last_stage(self) -> Path:
        """The run folder; of a staged run, that of its last stage."""
        return [Path(self._require_folder()), *self.stages.values()][-1]


def train(arguments: Facts, call: str = "train") -> Run:
    """The implementation of `gearshift.train` for its `arguments`; errors name those of `call`."""
    with _errors(call):
        custom_task.check_not_importing()
        console = bool(arguments["console"])
        model = arguments.get("model")
        args = CliArgs(
            model=custom_task.name_of(model) if isinstance(model, type) else _name(model),
            mode=arguments.get("mode"),
            engine=arguments["engine"],
            configs=list(map(Path, _listed(arguments["config"]))),
            sets=[f"{key}={text_of(value)}" for key, value in flat(arguments["settings"] or {})],
            options=_processes(arguments["nproc"]),
            resume=_name(arguments["resume"]),
            reset=_listed(arguments["reset"]),
        )
        ready = run_command.prepare(args, _path(arguments["out"]), [])
        stages = ready.folders
        result = ready.nothing_left
        if result is not None:
            if ready.is_rank_0:
                run_command.write_missing_reports(ready)
            return _run_of(result, Path(result["folder"]) if ready.is_rank_0 else None, stages)

        if console and ready.is_rank_0 and ready.warnings:
            say(render(_of_call(ready.warnings, call)), sys.stderr)
        end = run_command.train(ready, console, show=lambda end: None)
        reason = _outcome(end)["reason"]  # that of stages is the last one's
        return _run_of({**end.result, "reason": reason}, end.folder, stages)


def _listed(values: Any) -> list[Any]:
    """One value, or several, or none."""
    return [values] if isinstance(values, str | PathLike) else list(values or ())


def open_run(folder: str | PathLike[str]) -> Run:
    """The implementation of `gearshift.open_run`."""
    path = Path(folder)
    stages = RunReader(path).stages()
    with _errors("open_run"):
        if not stages and not run_folder.is_run_folder(path):
            raise checkpoint_search.no_run(path, str(path), "track")
        snapshots = [WatchedRun(stage).snapshot() for stage in stages.values() or (path,)]
        # Of several stages, the newest one that has started tells how far they are.
        started = [snapshot for snapshot in snapshots if snapshot.state != "not started"]
        last = [snapshots[0], *started][-1]
        result = summarize(stages) if stages else dict(RunReader(path).result() or {})

    if not last.has_ended or last.state == "killed":  # it has no result
        steps = last.progress.step if last.progress else 0
        result |= {"status": last.state, "steps": steps}
    peaks = result.get("peak_memory_bytes") or {"device": None, "host": None}
    return _run_of({**result, "peak_memory_bytes": peaks, "reason": last.reason}, path, stages)


def _run_of(result: Facts, folder: Path | None, stages: Mapping[str, Path]) -> Run:
    names = {item.name for item in fields(Run)} - {"folder", "stages"}
    values: Json = {name: result.get(name) for name in names}
    return Run(**values, folder=folder, stages=stages)


@contextmanager
def _errors(call: str) -> Iterator[None]:
    """Raise SettingsError of the arguments of `call`, and RunError for what fails."""
    try:
        yield
    except SettingsError as error:
        raise SettingsError(_of_call(error.diagnostics, call)) from error.__cause__
    except DataError as error:
        raise SettingsError(_of_call(about_data(error).diagnostics, call)) from error
    except (CheckpointError, StorageError, CommandFailed) as error:
        if getattr(error, "code", None) == exit_codes.INTERRUPTED:
            raise KeyboardInterrupt from error
        raise RunError(str(error)) from error


def _of_call(diagnostics: Iterable[Diagnostic], call: str) -> list[Diagnostic]:
    """The diagnostics with the Python call before their places, which are those of the options."""
    parts = []
    for diagnostic in diagnostics:
        where = (diagnostic.where or "").removeprefix("command line: ")
        parts.append(replace(diagnostic, where=f"{call}(): {where}".removesuffix(": ")))
    return parts


def _processes(nproc: int | None) -> dict[str, tuple[str, str]]:
    return {} if nproc is None else {"engine.nproc": ("--nproc", str(nproc))}


def _name(value: str | int | PathLike[str] | None) -> str | None:
    return None if value is None else str(value)


def _path(out: str | PathLike[str] | None) -> Path | None:
    return None if out is None else Path(out)


def _outcome(end: RunEnd) -> Facts:
    """What a run that did not fail ended with. Raises what ended any other."""
    # In this process the error itself is at hand, from ranks only its records.
    if isinstance(end.cause, SettingsError):
        raise end.cause
    if end.kind == "invalid input":
        raise SettingsError(end.diagnostics) from end.cause
    if end.exit_code == exit_codes.INTERRUPTED:
        raise KeyboardInterrupt
    if end.exit_code == exit_codes.FAILURE or end.outcome is None:
        raise RunError("\n".join(filter(None, [end.text, end.trace]))) from end.cause
    return end.outcome
