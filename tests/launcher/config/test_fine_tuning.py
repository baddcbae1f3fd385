"""Fine-tuning defaults of `model.pretrained`, the name of its model, and its context."""

import json

import pytest

from gearshift.launcher.config import presets
from gearshift.launcher.config.provenance import CliArgs
from gearshift.launcher.config.schema import model_name
from gearshift.launcher.config.selection import choose
from gearshift.launcher.config.settings_file import read_values
from gearshift.launcher.run_folder.checkpoint_search import model_of
from tests.launcher.given import SERVER, refused, resolved


@pytest.fixture
def base(tmp_path):
    """A folder with the configuration of a GPT-2 of 64 positions."""
    folder = tmp_path / "gpt2 (mine)"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_positions": 64}))
    return folder


@pytest.fixture
def fine_tuned(base):
    """Settings with the folder, and without a model unless one is given."""

    def resolve(*sets, model=None, **options):
        return resolved(f"model.pretrained={base}", *sets, model=model, **options)

    return resolve


def line_of(key):
    """The line of a key below `given: model.pretrained` in the family's file."""
    lines = presets.family("language").block("given", "model.pretrained")
    return next((line.where for line in lines if line.key == key), None)


def test_a_pretrained_model_has_the_values_of_fine_tuning(fine_tuned):
    keys = ("optim.lr", "schedule.warmup", "train.epochs", "train.micro_batch", "eval.share")
    for model in (None, "language", "language:tiny"):
        values = fine_tuned(model=model).values
        for key in keys:
            origin = values[key].origin
            assert (origin.layer, origin.where) == ("family", line_of(key)), (model, key)


def test_fine_tuning_has_no_values_of_a_size_and_a_named_one_has_no_effect(fine_tuned, base):
    for mode in ("default", "fast", "conservative"):
        run = fine_tuned(mode=mode)
        assert run.settings.train.max_steps is None
        assert run.settings.optim.lr < 1e-3
    assert fine_tuned(machine=SERVER).settings.precision == "bf16"
    assert not any("no model named" in note or "size" in note for note in fine_tuned().notes)
    (warning,) = fine_tuned(model="language:tiny").warnings
    assert warning.key == "model.size"
    assert fine_tuned(model="language").warnings == []


def test_modes_adapters_and_settings_of_the_user_override_fine_tuning(fine_tuned):
    lr = fine_tuned().settings.optim.lr
    assert fine_tuned(mode="fast").settings.optim.lr == pytest.approx(2 * lr)
    assert fine_tuned(lr="1e-3").settings.optim.lr == 1e-3
    assert resolved("model.pretrained=null", model=None).settings.optim.lr == 3e-3
    assert fine_tuned("model.lora.rank=4").settings.optim.lr > lr
    without_folder = resolved("model.lora.rank=4", model="language:small")
    assert without_folder.settings.optim.lr == 3e-3


def test_the_model_its_header_and_its_run_folder_are_named_for_the_folder(base, monkeypatch, said):
    assert model_name(resolved("model.pretrained=..", model=None).settings.model) != "language:.."
    monkeypatch.chdir(base)
    for folder in (".", str(base)):
        lines = said("--set", f"model.pretrained={folder}", "--dry-run").splitlines()
        assert lines[0] == "model    language:gpt2-mine"
        (folder,) = [line for line in lines if line.startswith("folder")]
        assert folder.startswith("folder   runs/language-gpt2-mine-default-")


def test_auto_resumes_a_run_of_the_same_folder_only(base, tmp_path):
    settings = {"family": "language", "size": "full", "pretrained": "elsewhere/gpt2 (mine)"}
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"model": settings}))
    choice = choose(CliArgs(sets=[f"model.pretrained={base}"]))
    assert model_of(read_values(path)) == (choice.family, choice.model)
    assert choose(CliArgs(model="language:full")).model == "full"


def test_a_length_is_cut_to_the_context_with_a_note_and_one_of_the_user_is_refused(
    fine_tuned, base
):
    run = fine_tuned()
    value = run.values["data.seq_len"]
    assert (value.value, value.origin.where) == (64, f"the context of {base}")
    assert value.replaced[0][0] > 64 and run.warnings == []
    assert f"data.seq_len: 64: the context of {base}" in run.notes
    [error] = refused(f"model.pretrained={base}", model=None, seq_len="200")
    assert (error.where, error.fix) == ("--seq-len 200", "--seq-len 64")
    run = fine_tuned(seq_len="32")
    assert (run.settings.data.seq_len, run.warnings) == (32, [])
    (base / "config.json").write_text("{")  # without a limit
    assert fine_tuned(seq_len="4096").settings.data.seq_len == 4096
