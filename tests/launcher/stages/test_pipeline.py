"""The stages of a command line, their settings, and what is refused before the start."""

import os

from gearshift.launcher.stages.pipeline import save_stages
from tests.launcher.given import set_torchrun
from tests.launcher.runs import ended, trained


def values(pipeline, key):
    """A setting of each remaining stage, with its origin."""
    found = [ready.resolved.values[key] for _, ready in pipeline.left]
    return [(value.value, value.origin.where) for value in found]


def test_each_stage_has_its_own_settings_and_starts_with_the_weights_of_the_one_before(prepared):
    pipeline = prepared(model="eeg_text:full", out="x")
    assert [value for value, _ in values(pipeline, "optim.lr")] == [5e-5, 1e-5]
    assert [value for value, _ in values(pipeline, "train.micro_batch")] == [4, 1]
    layers = [ready.resolved.values["optim.lr"].origin.layer for _, ready in pipeline.left]
    assert layers == ["mode", "mode"]
    assert values(pipeline, "model.encoder")[1] == ("x/1-encoder", "stage encoder of this run")
    assert values(pipeline, "stages") == [(["encoder"], "stage 1 of 2"), (["text"], "stage 2 of 2")]


def test_stages_of_an_argument_or_a_file_start_with_the_last_one_before(prepared, here, task):
    three = prepared(task, sets=["stages=[lower, upper, both]"], out="x")
    assert [value for value, _ in values(three, "model.start")] == [None, "x/1-lower", "x/2-upper"]
    (here / "mine.yaml").write_text("stages: [lower, both]\n")
    pipeline = prepared(task, configs=[here / "mine.yaml"], out="x")
    assert [entry.folder.name for entry in pipeline.entries] == ["1-lower", "2-both"]
    assert values(pipeline, "model.start")[1][0] == "x/1-lower"


def test_each_stage_has_the_budget_of_time(prepared):
    pipeline = prepared(model="eeg_text:full", sets=["train.time=1h"], out="x")
    assert [value for value, _ in values(pipeline, "train.time")] == ["1h", "1h"]


def test_errors_of_a_later_stage_come_first_and_settings_of_one_stage_give_no_warning(prepared):
    assert prepared(sets=["optim.rate=1"]) == ["unknown setting 'optim.rate'"]
    wrong = prepared(sets=["model.mask_share=0.2", "unread_settings=error"])
    assert wrong == ["model.mask_share 0.2 has no effect: model.stage is text"]
    assert prepared(sets=["model.word_dropout=0.2"]).warnings == []
    content = [diagnostic.message for diagnostic in prepared(sets=["save.every=100000"]).warnings]
    assert len(content) == len(set(content)) >= 1


def test_one_stage_is_an_ordinary_run_and_all_that_ranks_of_torchrun_train(prepared, monkeypatch):
    alone = prepared(stage="encoder")
    assert not alone.is_staged
    assert alone.plan.resolved.settings.model.stage == "encoder"
    assert not prepared(sets=["stages=[encoder]"]).is_staged
    set_torchrun(monkeypatch, rank=0, size=1)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    [content] = prepared()
    assert content.startswith("each stage runs in its own processes, but torchrun")
    assert not prepared(stage="encoder").is_staged


def ready(pipeline, *completed):
    """The folder of a pipeline; the `completed` stages have a checkpoint and a result."""
    pipeline.folder.mkdir(parents=True)
    save_stages(pipeline.folder, pipeline.entries)
    for entry, stage in pipeline.left:
        steps = [8] if entry.name in completed else []
        trained(entry.folder, stage.resolved, *steps)
        if steps:
            ended(entry.folder, "completed", 8)
    return pipeline.folder


def test_a_resumed_pipeline_skips_completed_stages_and_may_change_the_engine(prepared, task):
    ready(prepared(task, out="x", sets=["loader.workers=1"]), "lower")
    args = {"engine": "ddp", "options": {"engine.nproc": ("--nproc", "2")}}
    again = prepared(None, None, resume="x", resume_option="resume", **args)
    assert again.is_resumed and again.line == "resuming x: upper"
    [(entry, upper)] = again.left
    assert entry.name == "upper"
    assert values(again, "model.start")[0][0] == os.path.abspath("x/1-lower")
    assert (upper.resolved.settings.engine.name, upper.resolved.nproc) == ("ddp", 2)
    assert upper.resolved.settings.loader.workers == 1


def test_a_stage_of_a_moved_folder_resumes_with_its_own_weights(prepared, task):
    folder = ready(prepared(task, out="x"), "lower", "upper")
    (folder / "2-upper" / "result.json").unlink()
    before = (folder / "1-lower").absolute()
    folder.rename("y")
    again = prepared(None, None, resume="y")
    assert values(again, "model.start") == [("y/1-lower", "stage lower of this run")]
    [(_, upper)] = again.left
    assert upper.resume.changes == [f"model.start {before} → y/1-lower"]
