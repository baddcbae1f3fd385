"""The folder of a pretrained model may move; its weights must stay the same."""

from types import SimpleNamespace

import pytest

from gearshift.launcher.run_folder import resume_rules
from gearshift.launcher.run_folder.checkpoint_search import SavedCheckpoint
from gearshift.launcher.saved_runs.saved_model import SavedRun, model_of
from gearshift.training.checkpoint import base_weights
from tests.launcher.given import errors_of, resolved


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "base"
    path.mkdir()
    (path / "model.safetensors").write_bytes(b"weights")
    return path


@pytest.fixture
def checkpoint(folder):
    """A checkpoint of a run that started from the folder."""
    settings = {"model.family": "language", "model.pretrained": str(folder), "model.size": "full"}
    settings |= {"train.seed": 0, "eval.share": 0.1}
    fact = {"folder": str(folder), "sha256": base_weights.digest(folder)}
    return SimpleNamespace(
        folder=folder.parent / "step-1",
        manifest=SimpleNamespace(step=1),
        kinds=("weight",),
        facts={"settings": settings, base_weights.FACT: fact},
    )


def test_other_weights_and_a_run_without_a_checksum_are_refused(folder, checkpoint):
    saved = model_of(
        SavedRun(folder.parent, None, {}, {"model.pretrained": str(folder)}), checkpoint
    )
    (folder / "model.safetensors").write_bytes(b"other weights")
    (other,) = errors_of(saved.check_pretrained)
    assert checkpoint.facts.pop(base_weights.FACT)["sha256"] in other.allowed
    (unknown,) = errors_of(saved.check_pretrained)
    assert unknown.value == str(folder)


def test_a_resumed_run_may_change_the_folder_if_the_ranks_compare_its_weights(folder):
    now = resolved(f"model.pretrained={folder}", model="language")
    before = {key: value.value for key, value in now.values.items()}
    before["model.pretrained"] = "elsewhere"
    for base, rule in ((None, "never"), ({"folder": "elsewhere"}, "free")):
        (found,) = resume_rules.differences(before, now, SavedCheckpoint(2, before, base=base))
        assert (found.key, found.rule) == ("model.pretrained", rule)
