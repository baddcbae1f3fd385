"""What a start decides: batch, length, mode files, promises of custom tasks, counts, limits."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from launcher.__main__ import main
from launcher.base.diagnostics import SettingsError
from launcher.cli.parser import read
from launcher.compare import candidates
from launcher.config.batching import proposed_batch
from launcher.config.provenance import CliArgs
from launcher.config.resolve import resolve
from launcher.config.schema import task_class
from models.base import Context
from models.catalog import FAMILIES
from tests.launcher.custom_tasks import BODY, HEAD, write
from tests.launcher.given import LAPTOP, resolved
from tests.training.resources.test_limits import FULL
from training.resources.limits import LimitEnforcer
from training.settings import Limits
from training.train_plan import solve


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("samples", "most", "world_size", "size"),
    [
        (577, 128, 1, 115),  # a prime: 1 would drop none
        (577, 128, 2, 114),
        (577, 64, 1, 64),
        (20, 8, 4, 4),
        (7, 16, 1, 7),
        (7, 16, 2, 6),
        (3, 16, 4, None),
        (0, 16, 1, None),
        (1009, 1008, 1, 1008),
    ],
)
def test_the_proposed_batch_is_the_largest_that_drops_few(samples, most, world_size, size):
    assert proposed_batch(samples, most, world_size) == size


MOST = 100_000
"""More steps than any default has."""


def plan(run, samples=4000):
    sizes = {name: getattr(run.batching, name) for name in ("global_batch", "micro_batch")}
    return solve(run.settings, samples=samples, world_size=1, units="samples", **sizes)


@pytest.mark.parametrize("family", FAMILIES)
def test_max_steps_wins_over_the_epochs_of_a_family_and_a_mode(family):
    for mode, most in (("default", 1), ("default", MOST), ("staged", 1), ("fast", MOST)):
        run = resolved(max_steps=str(most), model=f"{family}:tiny", mode=mode)
        assert plan(run).total_steps == most, mode


def test_of_both_the_earlier_ends_the_run(here):
    (here / "mine.yaml").write_text("train: {epochs: 2}\n")
    epoch = plan(resolved(epochs="1")).steps_per_epoch
    late = resolved(max_steps=str(MOST), configs=[here / "mine.yaml"])
    early = resolved(max_steps="3", epochs="2")
    for run, steps in ((late, 2 * epoch), (early, 3)):
        assert plan(run).total_steps == steps
    with pytest.raises(SettingsError):
        resolved("train.epochs=null", "train.max_steps=null")


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


def test_a_mode_file_changes_the_defaults_of_the_model_and_may_build_on_another_mode():
    Path("gentle.yaml").write_text(GENTLE)
    found, default = of_mode("gentle.yaml"), resolved()
    assert found.settings.optim.lr == default.settings.optim.lr / 2
    assert found.settings.log.every == 7
    assert (found.settings.mode, found.promises) == ("default", PROMISE)
    assert found.values["log.every"].origin.where == "gentle.yaml:5"
    assert of_mode("gentle.yaml", "log.every=3").settings.log.every == 3
    Path("gentle.yaml").write_text(f"mode: fast\n{GENTLE}")
    found, fast = of_mode("gentle.yaml"), resolved(mode="fast")
    assert (found.settings.mode, found.settings.schedule) == ("fast", fast.settings.schedule)
    assert found.settings.optim.lr == default.settings.optim.lr / 2
    assert {**fast.promises, **PROMISE} == found.promises


def test_compare_takes_a_mode_file_by_its_name(capsys):
    Path("gentle.yaml").write_text(GENTLE)
    argv = ["compare", "--model", "language:tiny", "--modes", "default,gentle.yaml", "--steps", "4"]
    comparison = candidates.decide(read(argv))
    assert [item.mode for item in comparison.candidates] == ["default", "gentle"]
    assert comparison.candidates[1].promised()[0] == PROMISE
    folder = comparison.run_folder(1, comparison.study.rounds[0])
    assert folder == comparison.folder / "runs/gentle-local-1"
    assert main([*argv, "--dry-run", "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert main([*runs[1]["arguments"], "--dry-run"]) == 0
    assert "gentle.yaml:2 (mode)" in capsys.readouterr().out


SIZES = '    sizes = {"tiny": {"model.width": 2}, "full": {"model.width": 9}}\n'
FULL_SIZE = '    defaults = {"model.size": "full"}\n\n'
FRACTION = "    class Data(BaseModel):\n        fraction: float = 1.0\n\n"
WIDTH = "    class Model(BaseModel):\n        width: int = 4\n\n"
SAME = {"global_batch", "parameters"}


@pytest.mark.parametrize(
    ("parts", "mode", "promised"),
    [
        ([WIDTH], "lite", set()),
        ([WIDTH, SIZES, FULL_SIZE, FRACTION], "lite", set()),
        ([WIDTH], "fast", {"total_time", "parameters"}),
        ([WIDTH], "ultra-fast", {"total_time", "parameters"}),
        ([WIDTH], "conservative", {"total_time", *SAME}),
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
        ("language:tiny", "model.kv_heads=2"),
        ("language:tiny", "data.path=a.md model.tokenizer=bpe"),
        ("language:tiny", "data.path=a.md model.tokenizer=bpe model.vocabulary=300"),
        ("doc_translation:tiny", "model.decoder_layers=3 model.queries=5"),
        ("eeg_text:tiny", "model.tokenizer=bytes"),
        ("abr:tiny", "model.curriculum.peak=1"),
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


NOTHING = replace(FULL, ram=1.0, disk=1.0, swap=None, gpu=None, temperature=None)


@pytest.mark.parametrize(
    ("chosen", "named"),
    [*(([name], [name]) for name in ("swap", "gpu", "temperature")), ([], []), (["ram", "disk", "cpu"], [])],
)
def test_a_chosen_limit_of_what_the_machine_does_not_report_is_a_warning(chosen, named):
    events = []
    monitor = SimpleNamespace(read=lambda: NOTHING, start=lambda: None)
    LimitEnforcer(Limits(), monitor, lambda *event: events.append(event), chosen).start(None)
    texts = [facts["text"] for kind, facts in events if kind == "warning"]
    assert [text.partition(" ")[0] for text in texts] == [f"limits.{name}" for name in named]
