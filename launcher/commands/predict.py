"""The command `predict`: use the trained model of a run on files or prompts."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from gearshift.launcher.base import environment, exit_codes
from gearshift.launcher.base.diagnostics import SettingsError, counted
from gearshift.launcher.config.command_line import INPUT, CommandLine
from gearshift.launcher.config.errors import about_data
from gearshift.launcher.run_folder import run_folder
from gearshift.launcher.saved_runs import predict
from gearshift.launcher.saved_runs.predict import Predictor, Result
from gearshift.models.base import DataError, GeneratesText, Prompt, Sampling
from gearshift.training.callbacks.base import Json
from gearshift.training.logging.encoding import encode

if TYPE_CHECKING:
    from torch.nn import Module


def main(command_line: CommandLine) -> int:
    """Predict and print; the exit code. Raises SettingsError."""
    sampling, invalid = predict.sampling(command_line.values)
    if invalid:
        raise SettingsError(invalid)
    environment.limit_spinning()  # before torch is imported
    try:
        predictor = predict.open_predictor(
            command_line.argument,
            command_line.values.get("--checkpoint"),
            command_line.args.sets,
        )
        if isinstance(predictor.task, GeneratesText):
            facts = _generate(command_line, predictor, predictor.task, sampling)
        else:
            facts = _predict_files(command_line, predictor, sampling)
    except DataError as error:
        is_usable = error.fix and "--set" not in error.fix  # the command takes no settings
        raise about_data(error, fix=error.fix if is_usable else None) from error
    if command_line.as_json:
        print(encode(facts, indent=2))
    return exit_codes.DONE


def _predict_files(command_line: CommandLine, predictor: Predictor, sampling: Sampling) -> Json:
    """Predict the files of --input; the facts to print. Raises DataError, SettingsError."""
    family = predictor.saved.family
    predict.check_numbers(command_line.values, family)
    path = predict.files(command_line.values.get(INPUT), family, command_line.argument)
    out = command_line.out or predictor.default_folder
    if command_line.out:
        run_folder.check_unused(out, f"--out {out}")
    results = []
    folder = predict.ResultFolder(out)
    for prediction in predict.of_prepared([path], predictor.task, predictor.load(), sampling):
        results.append(Result(prediction.name, prediction.text, folder.write(prediction)))
        if not command_line.as_json and prediction.text:
            predict.print_text(prediction.text)
    count = sum(len(result.files) for result in results)
    if not command_line.as_json:
        print(f"wrote {counted(count, 'file')} to {out}" if count else "no file was written")
    return predictor.as_json(out if count else None, results)


def _generate(
    command_line: CommandLine, predictor: Predictor, task: GeneratesText, sampling: Sampling
) -> Json:
    """Generate text; the facts to print. Raises DataError, SettingsError."""
    as_json = command_line.as_json
    out = command_line.out
    argument = command_line.values.get(INPUT)
    if argument is None and sys.stdin.isatty() and not (as_json or out):
        model = predictor.load()
        name = predictor.saved.describe(f"on {predictor.device}")
        print(f"{name}; Ctrl-C stops a text, Ctrl-D ends", flush=True)
        predict.converse(task, model, sampling)
        return {}

    prompts = [_from_stdin()] if argument is None else predict.prompts(argument, task)
    if out:
        run_folder.check_unused(out, f"--out {out}")
    elif argument is not None and predict.exists(argument):
        out = predictor.default_folder
    # What is wrong with the arguments was found before the model is loaded.
    texts = _texts(task, predictor.load(), prompts, sampling, shown=not as_json)
    if out is None:
        return predictor.as_json(None, list(texts))

    name = prompts[0].name if len(prompts) == 1 else predict.stem(str(argument))
    folder = predict.ResultFolder(out)
    results = [
        folder.add_text(name, prompt, result) for prompt, result in zip(prompts, texts, strict=True)
    ]
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
            print(
                f"note: left out the oldest {counted(dropped, 'token')} of the prompt: "
                "the context of the model is full",
                file=sys.stderr,
            )
        if shown and len(prompts) > 1:
            print(f"{prompt.name}: ", end="", flush=True)
        parts = task.generate(model, prompt, sampling)
        text = "".join(predict.shown(parts) if shown else parts)
        if shown:
            print(flush=True)
        yield Result(prompt.name, text, dropped_tokens=dropped)


def _from_stdin() -> Prompt:
    try:
        # A person at a terminal would wait for an end of the input.
        text = "" if sys.stdin.isatty() else sys.stdin.read()
    except UnicodeDecodeError as error:
        raise SettingsError.of(f"stdin is not text: {error}", where="stdin") from None
    if not text.strip():
        allowed = f"a prompt on stdin, or {INPUT} with a text or a file"
        raise SettingsError.of("the prompt is empty", where="stdin", allowed=allowed)
    return predict.text_prompt(text.removesuffix("\n"))
