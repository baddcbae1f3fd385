"""What a start decides: batch, length, mode files, promises of custom tasks, counts, limits."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from gearshift.launcher.__main__ import main
from gearshift.launcher.config.provenance import CliArgs
from gearshift.launcher.config.resolve import resolve
from gearshift.launcher.config.schema import task_class
from gearshift.models.base import Context
from tests.launcher.custom_tasks import BODY, HEAD, write
from tests.launcher.given import LAPTOP, resolved


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


GENTLE = """\
sentence: half the learning rate
promise:
  peak_memory: {at_most: 1.5}
log:
  every: 7
optim:
  lr: {scale: 0.5}
"""
PROMISE = {"peak_memory": {"at_most": 1.5}}


def of_mode(mode, *sets):
    return resolve(CliArgs(model="language:tiny", mode=mode, sets=sets), LAPTOP)


def test_a_mode_file_changes_the_defaults_of_the_model():
    Path("gentle.yaml").write_text(GENTLE)
    found, default = of_mode("gentle.yaml"), resolved()
    assert found.settings.optim.lr == default.settings.optim.lr / 2
    assert found.settings.log.every == 7
    assert (found.settings.mode, found.promises) == ("default", PROMISE)
    assert found.values["log.every"].origin.where == "gentle.yaml:5"
    assert of_mode("gentle.yaml", "log.every=3").settings.log.every == 3
    Path("small.yaml").write_text("model: {size: small}\n")
    assert of_mode("small.yaml", "model.size=tiny").settings.model.size == "tiny"


SIZES = '    sizes = {"tiny": {"model.width": 2}, "full": {"model.width": 9}}\n'
FULL_SIZE = '    defaults = {"model.size": "full"}\n\n'
FRACTION = "    class Data(BaseModel):\n        fraction: float = 1.0\n\n"
WIDTH = "    class Model(BaseModel):\n        width: int = 4\n\n"
SAME = {"global_batch", "parameters"}


@pytest.mark.parametrize(
    ("parts", "mode", "promised"),
    [
        ([WIDTH, SIZES, FULL_SIZE, FRACTION], "lite", set()),
        ([WIDTH], "fast", {"total_time", "parameters"}),
        ([WIDTH], "resource-efficient", {"device_peak", "samples_per_s", *SAME}),
    ],
)
def test_a_mode_promises_a_custom_task_only_what_it_changes(here, parts, mode, promised):
    text = "".join(["class Line(CustomTask):\n", *parts, BODY])
    model = f"{write(here, HEAD + text)}:Line"
    assert set(resolved(model=model, mode=mode).promises) == promised


@pytest.mark.parametrize(
    ("model", "sets"),
    [
        ("event_seg:tiny", "model.widths=[4,8,12,16]"),
        ("language:tiny", "data.path=a.md model.tokenizer=bpe model.vocabulary=300"),
    ],
)
def test_the_dry_run_counts_the_parameters_that_are_built(model, sets, here, capsys):
    shutil.copy(Path(__file__).parents[2] / "docs" / "settings.md", "a.md")
    settings = resolved(*sets.split(), model=model).settings
    context = Context(0, settings.eval.share, here, torch.device("cpu"), attention="auto")
    task = task_class(settings.model.family)(settings.model, settings.data, context)
    if settings.model.family != "event_seg":  # whose network does not depend on data
        task.setup()
    built = sum(parameter.numel() for parameter in task.build().parameters())
    given = [word for text in sets.split() for word in ("--set", text)]
    assert main(["--model", model, *given, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == built
