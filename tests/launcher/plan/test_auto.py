"""Engine auto: when it plans, what it takes, what it keeps, and how it is shown."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from gearshift.launcher.base.diagnostics import SettingsError
from gearshift.launcher.config.machine import CONTEXT_BYTES, NCCL_BYTES
from gearshift.launcher.config.provenance import Chosen, CliArgs
from gearshift.launcher.plan import auto
from gearshift.launcher.plan.target import Described
from gearshift.launcher.run_folder.resume_rules import decide
from tests.launcher.given import LAPTOP, SERVER
from tests.launcher.runs import begun

MIB = 2**20
TWO = {"engine.nproc": ("--nproc", "2")}


def decided(described, *sets, **choice):
    args = CliArgs(**{"model": "language:tiny", "sets": sets, "options": TWO, **choice})
    return auto.decide_engine(args, None, described).resolved


def never(*_):
    raise AssertionError("it planned")


def gpus(count, memory):
    """GPUs with so much memory for tensors; None: unknown."""
    if memory is not None:
        memory += CONTEXT_BYTES + (NCCL_BYTES if count > 1 else 0)
    return Described(replace(SERVER, gpus=count, gpu_bytes=memory))


@pytest.mark.parametrize(
    ("described", "choice", "engine"),
    [
        (Described(LAPTOP), {}, "ddp"),
        (Described(LAPTOP), {"options": {}}, "local"),
        (Described(LAPTOP), {"engine": "zero2"}, "zero2"),
        (gpus(1, None), {"options": {}}, "local"),
        (gpus(4, None), {"options": {}}, "ddp"),
        (gpus(1, 2**30), {"model": "eeg_text", "options": {}}, "local"),  # it accumulates
    ],
)
def test_small_models_and_named_engines_are_not_planned(monkeypatch, described, choice, engine):
    monkeypatch.setattr(auto, "_in_child", never)
    assert decided(described, **choice).settings.engine.name == engine


def test_the_simplest_engine_is_taken_or_one_that_shards_where_replicas_do_not_fit():
    sets = ["memory.activation_checkpointing=none", "train.micro_batch=2", "train.accumulation=4"]
    whole = decided(gpus(4, None), *sets, engine="auto", options={})
    assert whole.chosen is not None and whole.chosen.engine == "ddp"
    assert whole.chosen.line.startswith("engine auto: ddp: ") and whole.chosen.line in whole.notes
    assert whole.chosen.line.endswith("GPU memory unknown")
    assert whole.values["engine.name"].origin.where.startswith("engine auto: ")
    assert whole.values["engine.name"].replaced[0][0] == "auto"
    run = decided(gpus(4, 5 * MIB), *sets, engine="auto", options={})
    assert run.chosen is not None and run.chosen.engine != "ddp"
    assert any(line.startswith("ddp ") for line in run.chosen.others)
    assert run.batching == whole.batching


def test_the_first_that_fits_is_taken_and_nothing_is_planned_after_it():
    target = SimpleNamespace(device="cuda", ranks=2)
    planned = []

    def chosen(fitting):
        planned.clear()

        def plan_with(engine):
            planned.append(engine)
            if engine == "oss":
                raise SettingsError.of("it cannot train this")
            fits = fitting.get(engine, False)
            return SimpleNamespace(needs="3 of 4", fits=fits, device_bytes=3, rank_host_bytes=3)

        return auto.first_that_fits(target, plan_with)

    choice = chosen({"ddp": False, "fsdp": None, "zero3-offload": True})
    assert (choice.engine, planned[0], planned[-1]) == ("fsdp", "ddp", "fsdp")
    assert len(choice.others) == len(planned) - 1
    assert chosen({"ddp": True}).engine == "ddp" and planned == ["ddp"]
    assert chosen({}) is None and planned[-1].endswith("offload") and "local" not in planned


def test_a_resumed_run_keeps_what_was_chosen(tmp_path):
    chosen = Chosen("zero3", "of a test")
    args = CliArgs(model="language:tiny", options=TWO)
    first = decide(args, None, LAPTOP, None, chosen).resolved
    begun(tmp_path / "x", first)
    again = decided(Described(LAPTOP), model=None, options={}, resume=str(tmp_path / "x"))
    assert again.settings.engine.name == "zero3" and again.batching == first.batching
    named = {"model": None, "options": {}, "resume": str(tmp_path / "x")}
    for engine, taken in (("ddp", "ddp"), ("auto", "ddp")):
        other = decided(Described(LAPTOP), engine=engine, **named)
        assert other.settings.engine.name == taken


def test_a_dry_run_says_why_and_explain_shows_what_each_engine_would_need(said):
    words = ("--model", "language:tiny", "--nproc", "2", "--engine", "auto")
    assert "note     engine auto: ddp: " in said(*words, "--dry-run")
    assert said("explain", "engine.name", *words, "--json")["engine.name"]["others"]
