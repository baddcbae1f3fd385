"""`eval.samples`: the same samples in every evaluation, spread over the split, and said so."""

import json
from types import SimpleNamespace

import pytest
import torch

from launcher.__main__ import main
from launcher.compare import report, rows
from launcher.compare.promises import check
from launcher.run.rank_data import RankData
from tests.launcher.given import resolved
from tests.training import facts
from tests.training.shelf import Shelf
from tests.training.tiny import TinyTask, make_settings, one_rank, run_tiny
from training.data.loader import EvaluationBatches
from training.data.samples import Samples
from training.evaluation.forgetting import ALL, NEW, OLD, Forgetting, HeldOutPart
from training.logging.console_text import render_summary


def samples(length, seed=0):
    task = TinyTask(val=length)
    return Samples(task, task.data("val"), seed)


def batches(length, most, *, size=1, rank=0, micro_batch=3, workers=0):
    loader = make_settings(loader={"workers": workers}).loader
    world = SimpleNamespace(rank=rank, size=size, device=torch.device("cpu"))
    return EvaluationBatches(samples(length), micro_batch, world, loader, limit=most)


@pytest.mark.parametrize(("length", "most"), [(101, 10), (7, 6), (5, 1), (10**12, 4)])
def test_one_sample_of_each_part_of_the_split_is_chosen(length, most, monkeypatch):
    given = samples(1)
    monkeypatch.setattr(type(given), "__len__", lambda self: length)
    chosen = list(given.spread(most))
    parts = [range(n * length // most, (n + 1) * length // most) for n in range(most)]
    assert all(index in part for index, part in zip(chosen, parts, strict=True))


def test_the_choice_follows_from_the_seed_and_has_no_period():
    chosen = list(samples(4000).spread(1000))
    assert chosen == list(samples(4000).spread(1000)) != list(samples(4000, seed=1).spread(1000))
    by_class = [sum(index % 4 == rest for index in chosen) for rest in range(4)]
    assert min(by_class) > 200  # every fourth sample would be of one class


@pytest.mark.parametrize("most", [None, 7, 8])
def test_a_split_that_is_not_larger_is_evaluated_whole(most):
    assert list(samples(7).spread(most)) == list(range(7))


def read(share):
    """The samples that count in the batches of a rank."""
    return [i for micro, counts in share if counts for i in micro.batch["index"].tolist()]


@pytest.mark.parametrize(("size", "most"), [(1, 10), (2, 1), (3, 10), (5, 4)])
def test_uneven_ranks_count_each_chosen_sample_once(size, most):
    shares = [list(batches(40, most, size=size, rank=rank)) for rank in range(size)]
    assert sorted(index for share in shares for index in read(share)) == [*samples(40).spread(most)]
    assert len({len(share) for share in shares}) == 1


def test_loader_workers_read_the_same_samples():
    helped = batches(40, 10, workers=2)
    assert read(helped) == list(samples(40).spread(10))
    helped.close()


def trained(most, *, shelf=None, step=None, **changes):
    sections = {"train": {"max_steps": 6, "epochs": 9}, "eval": {"every": 2, "samples": most}}
    before = None if step is None else shelf.before(step)
    return run_tiny(one_rank(), TinyTask(val=40), shelf=shelf, before=before, **sections, **changes)


def test_every_evaluation_counts_the_chosen_samples_and_the_test_split_stays_whole():
    run = trained(10)
    counts = [(e.samples, e.split_samples, e.metrics["samples"]) for e in run.recorder.evaluations]
    assert counts == [(10, 40, 10)] * 3
    assert (run.outcome.best["samples"], run.outcome.best["split_samples"]) == (10, 40)
    run = run_tiny(one_rank(), TinyTask(val=40), eval={"samples": 10, "test": True}, has_test=True)
    counts = {e.split: (e.samples, e.split_samples) for e in run.recorder.evaluations}
    assert counts == {"val": (10, 40), "test": (40, 40)}


def test_a_resumed_run_has_the_evaluations_of_an_unbroken_one():
    shelf = Shelf()
    whole = trained(10, shelf=shelf, save={"every": 3})
    resumed = trained(10, shelf=shelf, step=3)
    assert resumed.recorder.evaluations[-1].metrics == whole.recorder.evaluations[-1].metrics
    assert resumed.outcome.best == whole.outcome.best


@pytest.mark.parametrize(("first", "then"), [(10, None), (None, 10), (10, 20)])
def test_scores_on_other_samples_are_not_compared_after_a_resume(first, then):
    shelf = Shelf()
    trained(first, shelf=shelf, save={"every": 3}, optim={"lr": 0.1})
    facts_of_checkpoint = shelf.saved[3]["facts"]["evaluator"]
    facts_of_checkpoint |= {"best": {"value": -1.0, "step": 2}, "reference": -1.0, "waited": 2}
    resumed = trained(then, shelf=shelf, step=3, stop={"patience": 2}, optim={"lr": 0.1})
    used = resumed.recorder.evaluations[-1].samples
    assert resumed.outcome.steps == 6  # two evaluations without improvement before do not count
    assert resumed.outcome.best["step"] > 3 and resumed.outcome.best["samples"] == used
    assert shelf.saved[6]["score"].samples == then


def test_a_noise_control_is_evaluated_whole():
    band = {"error": {"max": 1.0, "chance": 0.5}}
    for control, used in ((band, 40), (None, 10)):
        task = TinyTask(val=40, control=control)
        data = RankData(0, task.data("train"), [task])
        given = (one_rank(), make_settings().loader, None, ())
        validation, _ = data.evaluation(0, 10, 3, *given)
        assert (validation.samples, validation.split_samples) == (used, 40)


def test_a_cap_of_the_user_in_a_noise_control_is_a_warning():
    for model in ("language:tiny", "abr:tiny"):
        (warning,) = resolved("eval.samples=5", "data.control=noise", model=model).warnings
        assert "eval.samples" in warning.message and "data.control is noise" in warning.message
        assert not resolved("data.control=noise", model=model, mode="lite").warnings


def test_forgetting_counts_the_samples_of_each_side():
    parts = [HeldOutPart(TinyTask(val=n), batches(n, 10)) for n in (40, 8, 30)]
    forgetting = Forgetting(2, parts[:2], parts[2])
    counts = {split: forgetting.samples(split) for split in (OLD, NEW, ALL)}
    assert counts == {OLD: (18, 48), NEW: (10, 30), ALL: (28, 78)}


def test_the_last_lines_say_it_and_what_evaluations_cost():
    best = {"metric": "loss", "value": 2.25, "step": 50, "samples": 512, "split_samples": 3672}
    lines = render_summary(facts.outcome(best=best), None)
    text = "best       loss 2.2500 at step 50, over 512 of 3,672 samples (eval.samples)"
    assert text in lines
    split = {"evaluation_s": 80.0, "forward_s": 20.0}
    best |= {"samples": 4000, "split_samples": 4000}
    lines = render_summary(facts.outcome(best=best, wall_s=100.0, time_split=split), None)
    text = "evaluation took 80% of the time; fewer samples:  --set eval.samples=100"
    assert f"time       {text}" in lines  # 2 of 20 other seconds


def row(mode, samples):
    metric = {"metric": "val_loss", "value": 2.0, "step": 9, "direction": "min"}
    facts = {"metric": metric, "source": "a", "evaluated": (samples, 831)}
    return rows.ComparisonRow("language:tiny", mode, "local", **facts)


def test_a_promise_on_a_metric_needs_scores_on_the_same_samples():
    whole, part = row("default", 831), row("gentle", 128)
    promised = {"metric": {"at_least": 1}}
    (different,) = check(promised, part, whole)
    source = "128 of 831 samples (eval.samples) of a"
    assert different.kept is None
    assert different.why == f"it is scored on {source}, mode default on a"
    (same,) = check(promised, part, part)
    assert (same.kept, same.measured) == (True, 1)
    (said,) = (line for line in report.legend([whole, part]) if "best metric" in line)
    assert said == "best metric of gentle local: over 128 of 831 samples (eval.samples)"


@pytest.mark.parametrize(
    ("model", "most"),
    [("language:small", 128), ("doc_translation:tiny", 32), ("eeg_text:tiny", 32)],
)
def test_lite_caps_evaluations_and_other_modes_do_not(model, most):
    setting = resolved(model=model, mode="lite").values["eval.samples"]
    assert (setting.value, setting.origin.layer) == (most, "mode")
    for mode in ("default", "fast", "ultra-fast", "benchmark", "resource-efficient"):
        assert resolved(model=model, mode=mode).settings.eval.samples is None


@pytest.fixture(scope="module")
def lite_run(tmp_path_factory):
    """The folder of a run in mode lite on 150 samples for validation."""
    folder = tmp_path_factory.mktemp("lite")
    rows = (f'{{"prompt": "what is {i}", "response": "{i}"}}\n' for i in range(600))
    (folder / "mine.jsonl").write_text("".join(rows))
    run = f"--model language:tiny --lite --out {folder}/run --max-steps 1"
    data = f"--data {folder}/mine.jsonl --set data.fraction=1 --set eval.share=0.25"
    assert main(f"{run} {data} --set train.preview=false".split()) == 0
    return folder / "run"


def test_a_lite_run_reads_so_many_samples_and_says_so(lite_run):
    lines = [json.loads(line) for line in (lite_run / "metrics.jsonl").read_text().splitlines()]
    (line,) = (line for line in lines if line["kind"] == "eval")
    assert (line["samples"], line["split_samples"]) == (128, 150)
    text = (lite_run / "log.txt").read_text()
    assert "eval       val: 128 of 150 samples (eval.samples)" in text
    assert ", over 128 of 150 samples (eval.samples)" in text


@pytest.mark.slow
def test_evaluate_reads_all_of_a_lite_run(lite_run, capsys):
    assert main(["evaluate", str(lite_run), "--split", "val", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 150
