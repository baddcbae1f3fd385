"""Which stages words come to, what each is told, and what is refused before any begins."""

import json
import os

import pytest

from launcher.run.prepare import Start
from launcher.run_folder import run_folder
from launcher.stages import record
from launcher.stages.pipeline import Chain
from models.catalog import stages_of
from tests.launcher.runs import ended, trained
from tests.launcher.stages.conftest import EEG


def values(chain, key):
    """A setting of each stage that is left, with its place."""
    found = [begun.resolved.values[key] for _, begun in chain.left]
    return [(value.value, value.origin.place) for value in found]


def test_mode_staged_trains_the_stages_that_are_not_optional(prepared, task):
    assert [link.name for link in prepared().links] == ["encoder", "text"]
    assert [link.name for link in prepared(task).links] == ["lower", "upper"]


def test_each_stage_has_settings_of_its_own(prepared):
    chain = prepared(model="eeg_text:full", out="x")
    assert [value for value, _ in values(chain, "optim.lr")] == [5e-5, 1e-5]
    assert [value for value, _ in values(chain, "train.micro_batch")] == [4, 1]
    layers = [begun.resolved.values["optim.lr"].origin.layer for _, begun in chain.left]
    assert layers == ["stage", "stage"]


def test_a_stage_begins_with_the_weights_of_the_one_before(prepared):
    chain = prepared(out="x")
    assert values(chain, "model.encoder")[1] == ("x/1-encoder", "stage encoder of this run")
    assert values(chain, "stages") == [(["encoder"], "stage 1 of 2"), (["text"], "stage 2 of 2")]


def test_of_several_stages_it_takes_the_one_that_was_trained_last(prepared, task):
    three = prepared(task, sets=["stages=[lower, upper, both]"], out="x")
    assert [value for value, _ in values(three, "model.start")] == [None, "x/1-lower", "x/2-upper"]


def test_stages_in_a_settings_file_count_as_well(prepared, here, task):
    (here / "mine.yaml").write_text("stages: [lower, both]\n")
    chain = prepared(task, configs=[here / "mine.yaml"], out="x")
    assert [link.folder.name for link in chain.links] == ["1-lower", "2-both"]
    assert values(chain, "model.start")[1][0] == "x/1-lower"


def test_one_stage_is_an_ordinary_run(prepared):
    alone = prepared(stage="encoder")
    assert isinstance(alone, Start)
    assert alone.resolved.settings.model.stage == "encoder"
    assert isinstance(prepared(sets=["stages=[encoder]"]), Start)


def test_without_a_name_all_stages_lie_in_a_folder_below_runs(prepared, here):
    chain = prepared()
    assert chain.folder.parent == run_folder.PARENT
    assert chain.folder.name.startswith("eeg_text-tiny-staged-local-")
    assert all(link.folder.parent == chain.folder for link in chain.links)
    assert list(here.iterdir()) == []


def test_each_fault_of_words_is_told_once(prepared):
    assert prepared(sets=["optim.rate=1"]) == ["key 'optim.rate' is not known"]


def test_faults_of_a_later_stage_are_told_before_the_first_begins(prepared):
    wrong = prepared(sets=["model.mask_share=0.2", "unread_settings=error"])
    told = "counts only where model.stage is encoder, and it is text"
    assert wrong == [f"model.mask_share 0.2 {told}"]


def test_a_setting_that_counts_in_one_stage_is_no_reason_to_warn(prepared):
    assert prepared(sets=["model.word_dropout=0.2"]).warnings == []
    told = [fault.message for fault in prepared(sets=["save.every=100000"]).warnings]
    assert len(told) == len(set(told)) >= 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--mode", "staged", "--stage", "encodr"],
            "error: stage 'encodr' is not known\n"
            "  where         --stage encodr\n"
            "  allowed       KNOWN\n"
            "  did you mean  encoder\n"
            "  fix           write  --stage encoder\n",
        ),
        (
            ["--mode", "staged", "--set", "stages=[text,encoder]"],
            "error: stages ['text', 'encoder'] are not in their order\n"
            "  where         --set stages=[text,encoder]\n"
            "  allowed       KNOWN\n"
            "  did you mean  [encoder,text]",
            "  fix           write  --set stages=[encoder,text]\n",
        ),
        (
            ["--mode", "staged", "--stage", "text"],
            "error: stage text needs the weights of stage encoder, and nothing says where they "
            "are\n"
            "  where         --stage text\n"
            "  allowed       --from RUN, a run of stage encoder; or all stages, --mode staged\n"
            "  fix           write  --from RUN\n",
        ),
        (
            ["--stage", "encoder", "--fast"],
            "error: stages ['encoder'] counts only in mode staged, and it is fast\n"
            "  where         --stage encoder\n"
            "  fix           write  --mode staged\n",
        ),
        (
            ["--mode", "staged", "--from", "elsewhere"],
            "error: --from elsewhere: stage encoder begins with random weights, and loads none\n"
            "  where         --from elsewhere\n"
            "  allowed       with a later stage\n"
            "  fix           leave it out\n",
        ),
        (
            ["--from", "elsewhere"],
            "error: --from elsewhere names the first weights of a stage, and no stage is trained "
            "here\n"
            "  where         --from elsewhere\n"
            "  allowed       with  --mode staged --stage NAME\n",
        ),
    ],
)
def test_what_is_wrong_is_answered_so_and_nothing_is_written(command, here, words, said):
    known = ", ".join(stage.name for stage in stages_of("eeg_text"))
    assert command("--model", EEG, *words) == (2, "", said.replace("KNOWN", known))
    assert list(here.iterdir()) == []


def test_a_folder_with_another_run_is_refused(prepared, here):
    (here / "x").mkdir()
    (here / "x" / "settings.yaml").touch()
    assert prepared(out="x") == ["the run folder x holds another run"]


def test_processes_that_others_started_train_one_stage_at_a_time(prepared, monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "GROUP_RANK"):
        monkeypatch.setenv(name, "0")
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    [told] = prepared()
    assert told.startswith("each stage is trained in processes of its own, and torchrun")
    assert isinstance(prepared(stage="encoder"), Start)


def test_a_dry_run_shows_all_stages_and_writes_nothing(command, here):
    code, shown, _ = command("--model", EEG, "--mode", "staged", "--out", "x", "--dry-run")
    assert code == 0
    assert shown.index("stage 1 of 2: encoder") < shown.index("stage 2 of 2: text")
    assert "x/1-encoder" in shown and "stage encoder of this run" in shown
    code, told, _ = command("--model", EEG, "--mode", "staged", "--dry-run", "--json")
    stages = json.loads(told)["stages"]
    assert [one["name"] for one in stages] == ["encoder", "text"]
    assert stages[0]["processes"][0]["started"]
    assert list(here.iterdir()) == []


def test_explain_shows_a_setting_of_each_stage_with_its_origin(command):
    words = ("explain", "optim.lr", "--model", "eeg_text", "--mode", "staged")
    _, shown, _ = command(*words)
    assert [line for line in shown.splitlines() if line.startswith("optim.lr")] == [
        "optim.lr = 5e-5",
        "optim.lr = 1e-5",
    ]
    told = json.loads(command(*words, "--json")[1])
    assert {name: one["optim.lr"]["layer"] for name, one in told.items()} == {
        "encoder": "stage",
        "text": "stage",
    }
    assert command(*words, "--stage", "encoder")[1].startswith("optim.lr = 5e-5")


def begun(chain, *completed):
    """The folders of a chain; of the `completed` stages with a checkpoint and a result."""
    chain.folder.mkdir(parents=True)
    record.save(chain.folder, [link.name for link in chain.links])
    for link, one in chain.left:
        steps = [8] if link.name in completed else []
        trained(link.folder, one.resolved, *steps)
        if steps:
            ended(link.folder, "completed", 8)
    return chain.folder


def test_what_goes_on_leaves_completed_stages_out(prepared, task):
    begun(prepared(task, out="x"), "lower")
    again = prepared(None, None, resume="x", resume_option="resume")
    assert again.goes_on and again.line == "going on with x: upper"
    assert [link.name for link, _ in again.left] == ["upper"]
    assert values(again, "model.start")[0][0] == "x/1-lower"


def test_a_chain_that_goes_on_may_take_another_engine(prepared, task):
    begun(prepared(task, out="x", sets=["loader.workers=1"]), "lower")
    words = {"engine": "ddp", "options": {"engine.nproc": ("--nproc", "2")}}
    again = prepared(None, None, resume="x", resume_option="resume", **words)
    [(_, upper)] = again.left
    assert (upper.resolved.settings.engine.name, upper.resolved.nproc) == ("ddp", 2)
    assert upper.resolved.settings.loader.workers == 1


def test_a_folder_that_was_moved_goes_on_with_the_weights_in_it(prepared, task):
    begun(prepared(task, out="x"), "lower").rename("y")
    again = prepared(None, None, resume="y")
    assert values(again, "model.start") == [("y/1-lower", "stage lower of this run")]


def test_so_does_a_stage_of_it_that_has_trained(prepared, task):
    folder = begun(prepared(task, out="x"), "lower", "upper")
    (folder / "2-upper" / "result.json").unlink()
    folder.rename("y")
    [(_, upper)] = prepared(None, None, resume="y").left
    assert upper.resume.changes == ["model.start x/1-lower → y/1-lower"]


@pytest.mark.parametrize("words", [["verify"], ["export", "--format", "safetensors"]])
def test_what_needs_one_run_names_the_last_stage(command, prepared, task, words):
    begun(prepared(task, out="x"), "lower", "upper")
    code, _, told = command(words[0], "x", *words[1:])
    assert code == 2 and told.startswith("error: 'x' holds several runs, one for each stage\n")
    assert told.endswith(f"write  python -m launcher {words[0]} x/2-upper\n")


def test_of_completed_stages_nothing_is_left(command, prepared, task):
    begun(prepared(task, out="x"), "lower", "upper")
    code, told, _ = command("resume", "x")
    assert code == 0 and told.startswith("nothing is left to do: all stages of x were completed")
    assert json.loads(command("resume", "x", "--json")[1])["status"] == "completed"


@pytest.mark.parametrize(
    "words", [["--stage", "upper"], ["--from", "y"], ["--out", "z"]], ids=lambda words: words[0]
)
def test_words_that_mean_nothing_to_stages_which_go_on_are_refused(command, prepared, task, words):
    begun(prepared(task, out="x"), "lower")
    code, _, told = command("resume", "x", *words)
    assert code == 2
    assert told.startswith(f"error: {words[0]} with the stages of x, which go on as they began")
    assert "x/1-lower, x/2-upper" in told


def test_auto_finds_the_newest_stages_of_the_same_model(prepared, task):
    first = begun(prepared(task), "lower", "upper")
    second = begun(prepared(task), "lower")
    os.utime(first / "stages.json", (9e9, 9e9))
    again = prepared(task, resume="auto")
    assert isinstance(again, Chain) and again.folder == second
    assert not prepared(resume="auto").goes_on
    assert prepared(task, out=str(second), resume="auto").goes_on
