"""The command `predict`: use the trained model of a run on files or prompts."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gearshift.launcher.base import environment, exit_codes
from gearshift.launcher.base.diagnostics import PROGRAM, SettingsError, counted
from gearshift.launcher.config.command_line import INPUT, JSON, CommandLine
from gearshift.launcher.config.errors import about_data
from gearshift.launcher.run import affinity
from gearshift.launcher.run_folder import run_folder
from gearshift.launcher.saved_runs import predict
from gearshift.launcher.saved_runs.predict import Predictor, Result
from gearshift.models.base import DataError, GeneratesText, Prompt, Sampling
from gearshift.training.logging.strict_json import encode

if TYPE_CHECKING:
    from torch.nn import Module


def main(command_line: CommandLine) -> int:
    """Predict and print; the exit code. Raises SettingsError."""
    values = command_line.values
    sampling, diagnostics = predict.sampling(values)
    if diagnostics := [*command_line.diagnostics, *diagnostics]:
        raise SettingsError(diagnostics)
    affinity.limit_spinning(environment.variables())  # before torch is imported
    run = Path(command_line.argument)

    def log(text: str) -> None:
        if (run / run_folder.LOG).is_file():
            run_folder.append_log(run, text)

    try:
        with environment.logged(log):
            checkpoint = values.get("--checkpoint")
            sets = command_line.args.sets
            predictor = predict.open_predictor(str(run), checkpoint, sets)
            if isinstance(predictor.task, GeneratesText):
                facts = _generate(command_line, predictor, predictor.task, sampling)
            else:
                facts = _predict_files(command_line, predictor, sampling)
    except DataError as error:  # its fix may be a setting, and the command takes none
        fix = error.fix if error.fix and "--set" not in error.fix else None
        raise about_data(error, fix=fix) from error
    if command_line.as_json:
        print(encode(facts, indent=2))
    return exit_codes.DONE


def _predict_files(
    command_line: CommandLine, predictor: Predictor, sampling: Sampling
) -> dict[str, Any]:
    """Predict the files of --input; the facts to print. Raises DataError, SettingsError."""
    predict.check_numbers(command_line.values, predictor.saved.family)
    path = predict.files(
        command_line.values.get(INPUT), predictor.saved.family, command_line.argument
    )
    out = command_line.out or predictor.default_folder
    if command_line.out is not None:
        run_folder.check_free(out, command_line.out)
    results = []
    folder = predict.ResultFolder(out)
    for prediction in predict.of_prepared([path], predictor.task, predictor.load(), sampling):
        names = folder.write(prediction)
        results.append(Result(prediction.name, prediction.text, names))
        if not command_line.as_json and prediction.text:
            predict.print_text(prediction.text)
    count = sum(len(result.files) for result in results)
    if not command_line.as_json:
        print(f"wrote {counted(count, 'file')} to {out}" if count else "no file was written")
    return predictor.as_json(out if count else None, results)


def _generate(
    command_line: CommandLine, predictor: Predictor, task: GeneratesText, sampling: Sampling
) -> dict[str, Any]:
    """Generate text; the facts to print. Raises DataError, SettingsError."""
    as_json = command_line.as_json
    given = command_line.values.get(INPUT)
    out = command_line.out
    if given is None and sys.stdin is not None and sys.stdin.isatty():
        if as_json or out is not None:
            flag = JSON.flag if as_json else "--out"
            message = f"{flag} requires {INPUT}, or a prompt on stdin"
            where = f"command line: {flag}"
            raise SettingsError.of(message, key=flag, where=where, fix=f'{INPUT} "TEXT"')
        model = predictor.load()
        name = predictor.saved.describe(f"on {predictor.device}")
        print(f"{name}; Ctrl-C stops a text, Ctrl-D ends", flush=True)
        predict.converse(task, model, sampling)
        return {}
    run = command_line.argument
    prompts = [_from_stdin(run)] if given is None else predict.prompts(given, task)
    if out is not None:
        run_folder.check_free(out, out)
    elif given is not None and predict.exists(given):
        out = predictor.default_folder
    model = predictor.load()
    texts = _texts(task, model, prompts, sampling, shown=not as_json)
    if out is None:
        return predictor.as_json(None, list(texts))
    name = prompts[0].name if len(prompts) == 1 else predict.stem(str(given))
    folder = predict.ResultFolder(out)
    pairs = zip(prompts, texts, strict=True)
    results = [folder.add_text(name, prompt, result) for prompt, result in pairs]
    if not as_json:
        print(f"wrote {out / results[0].files[0]}")
    return predictor.as_json(out, results)


def _texts(
    task: GeneratesText, model: Module, prompts: Sequence[Prompt], sampling: Sampling, shown: bool
) -> Iterator[Result]:
    """The text after each prompt, printed as it comes if it is `shown`."""
    for prompt in prompts:
        dropped = task.dropped_tokens(prompt, sampling)
        if dropped and shown:
            tokens = f"the oldest {counted(dropped, 'token')} of the prompt"
            print(f"note: left out {tokens}: the context of the model is full", file=sys.stderr)
        parts = task.generate(model, prompt, sampling)
        if shown:
            print(f"{prompt.name}: " if len(prompts) > 1 else "", end="", flush=True)
        text = "".join(predict.shown(parts) if shown else parts)
        if shown:
            print(flush=True)
        yield Result(prompt.name, text, dropped_tokens=dropped)


def _from_stdin(run: str) -> Prompt:
    try:
        text = sys.stdin.read() if sys.stdin is not None else ""
    except UnicodeDecodeError as error:
        raise SettingsError.of(f"stdin is not text: {error}", where="stdin") from None
    if not text.strip():
        raise SettingsError.of(
            "the prompt is empty",
            where="stdin",
            allowed=f"a prompt on stdin, or {INPUT} with a text or a file",
            fix=f'{PROGRAM} predict {shlex.quote(run)} {INPUT} "TEXT"',
        )
    return predict.text_prompt(text.removesuffix("\n"))
