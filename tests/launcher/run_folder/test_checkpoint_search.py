"""The run to resume is found by its folder, its checkpoint, a step, or as the newest."""

from pathlib import Path

import pytest

from gearshift.launcher.base.diagnostics import SettingsError
from gearshift.launcher.config.provenance import CliArgs
from gearshift.launcher.run_folder import checkpoint_search
from tests.launcher.given import resolved
from tests.launcher.runs import begun, ended, saved, trained
from tests.privileges import reachable_folder, unreadable

pytestmark = pytest.mark.usefixtures("here")
TINY = resolved()


def find(run, out=None, **options):
    cli_args = CliArgs(model="language:tiny", resume=run, **options)
    return checkpoint_search.find(cli_args, None if out is None else Path(out))


def refused(run, out=None):
    with pytest.raises(SettingsError) as wrong:
        find(run, out)
    return str(wrong.value).splitlines()


@pytest.mark.parametrize(
    ("named", "step"),
    [("runs/a/", None), ("runs/a/last", 20), ("runs/a/checkpoints/step-00000010", 10)],
)
def test_a_folder_is_a_run_or_one_of_its_checkpoints(monkeypatch, here, named, step):
    trained(Path("runs/a"), TINY, 10, 20)
    found = find(named)
    assert (found.folder, found.requested_step) == (Path("runs/a"), step)
    assert found.checkpoint.step == step or (step is None and found.checkpoint.step == 20)
    assert found.checkpoint.settings["model.size"] == "tiny"
    monkeypatch.chdir(named)
    assert find(".").folder.resolve() == here / "runs/a"


def test_a_step_belongs_to_the_run_started_or_resumed_last():
    trained(Path("runs/old"), TINY, 10, at=1)
    trained(Path("runs/new"), TINY, 10, at=3)
    trained(Path("runs/middle"), TINY, 10, at=2)
    assert (find("10").folder, find("10").requested_step) == (Path("runs/new"), 10)
    assert find("10", out="runs/old").folder == Path("runs/old")


CANNOT = "error: cannot use the checkpoint of step"


def test_a_damaged_checkpoint_is_passed_over_and_a_run_with_no_other_does_not_restart():
    trained(Path("runs/a"), TINY, 10, 20)
    Path("runs/a/last/state.json").write_text('{"facts": {}}')
    assert find("runs/a").checkpoint.step == 10
    assert checkpoint_search.newest_step(Path("runs/a")) == 10
    assert refused("20")[0].startswith(f"{CANNOT} 20: runs/a/checkpoints")
    trained(Path("runs/b"), TINY, 10)
    state = Path("runs/b/last/state.json")
    state.write_bytes(state.read_bytes().replace(b'"tiny"', b'"tinx"'))
    for lines in (refused("runs/b"), refused("auto", "runs/b")):
        assert lines[0].startswith(f"{CANNOT} 10: ") and "state.json is damaged" in lines[0]


@pytest.mark.parametrize(
    "facts", [{"settings": 3}, {}, {"settings": {}, "starts": {"data": "x"}}, b"\xff"]
)
def test_a_folder_without_a_valid_state_is_no_checkpoint(facts):
    saved(begun(Path("runs/a"), TINY), 10, TINY, facts)
    assert refused("runs/a")[0].startswith(f"{CANNOT} 10: ")


def test_auto_takes_the_newest_run_of_the_same_model_and_mode_that_is_not_completed():
    trained(Path("runs/mine"), TINY, 10, at=1)
    trained(Path("runs/older"), TINY, 10, at=0)
    ended(trained(Path("runs/done"), TINY, 10, at=2), "completed", 10)
    trained(Path("runs/larger"), resolved(model="language:small"), 10, at=3)
    trained(Path("runs/fast"), resolved(mode="fast"), 10, at=4)
    begun(Path("runs/unsaved"), TINY, at=5)
    ended(trained(Path("runs/stopped"), TINY, 10, at=0), "stopped", 10)
    assert find("auto").folder == Path("runs/mine")
    assert find("auto", mode="fast").folder == Path("runs/fast")
    assert find("auto", sets=["model.size=small"], mode=None).folder == Path("runs/larger")
    assert find("auto", mode="lite") is None


def test_auto_resumes_in_the_given_folder_if_it_has_a_checkpoint():
    Path("mine").mkdir()
    Path("mine/settings.yaml").write_text("model: {family: language}\n")  # of the user
    assert find("auto", out="mine") is None and refused("mine")
    Path("mine/settings.yaml").unlink()
    begun(Path("mine"), TINY)
    assert find("auto", out="mine") is None
    saved(Path("mine"), 10, TINY)
    assert find("auto", out="mine").checkpoint.step == 10
    ended(begun(Path("done"), TINY), "completed", 10)
    assert find("auto", out="done").is_completed


@pytest.mark.parametrize(
    ("run", "name"),
    [
        ("runs/a", "checkpoints"),
        ("20", "checkpoints/step-00000020/manifest.json"),
        ("auto", "checkpoints/step-00000020/state.json"),
    ],
)
def test_a_checkpoint_without_permission_is_named_and_no_older_one_found(monkeypatch, run, name):
    with reachable_folder() as folder:
        monkeypatch.chdir(folder)
        trained(Path("runs/b"), TINY, 10, at=1)
        trained(Path("runs/a"), TINY, 10, 20, at=2)
        with unreadable(Path("runs/a") / name):
            lines = refused(run)
        assert lines[0].startswith(f"error: runs/a/{name}")
