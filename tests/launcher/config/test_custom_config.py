"""Settings declared by a task's class are layered, checked and saved like any others."""

from itertools import cycle

import pytest

from gearshift.launcher.base.diagnostics import SettingsError
from gearshift.launcher.config import custom_task, presets, render
from gearshift.launcher.config.check import unused_diagnostics
from gearshift.launcher.config.provenance import CliArgs
from gearshift.launcher.run_folder import checkpoint_search
from gearshift.launcher.run_folder.resume_rules import decide
from tests.launcher.custom_tasks import BODY, EXAMPLES, HEAD, LINE, write
from tests.launcher.given import LAPTOP, SERVER, refused, resolved
from tests.launcher.runs import trained

SIZES = """\
    sizes = {
        "small": {"model.width": 2},
        "large": {"model": {"width": 9}},
    }

"""
MODES = [mode for mode in presets.modes() if mode != "staged"]


@pytest.fixture(autouse=True)
def examples(here, search_path):
    custom_task.add_search_folder(str(EXAMPLES))


@pytest.fixture
def line(here):
    return f"{write(here, HEAD + LINE + BODY)}:Line"


@pytest.fixture
def sized(here):
    return f"{write(here, HEAD + LINE + SIZES + BODY)}:Line"


def test_defaults_of_the_class_override_those_of_all_tasks_with_its_line(line):
    epochs = resolved(model=line).values["train.epochs"]
    assert (epochs.value, epochs.origin.layer) == (2, "family")
    assert epochs.origin.where == f"{line.partition(':')[0]}.py:6"
    assert epochs.replaced[0][1].where.startswith("ds_configs/custom_task.yaml:")
    assert resolved(model=line).batching.micro_batch == 4


def test_a_setting_of_the_class_is_read_checked_and_kept(line):
    run = resolved("model.width=9", model=line)
    assert run.settings.model.width == 9
    assert "  width: 9\n" in render.render_settings(run)
    [found] = refused("model.width=wide", model=line)
    assert (found.key, found.allowed) == ("model.width", "a whole number")
    [found] = refused("model.widht=9", model=line)
    assert (found.allowed, found.did_you_mean) == ("family, folder, width", "model.width")


def test_saved_settings_of_a_run_resolve_to_the_same_settings_and_are_used(sized, here):
    run = resolved("model.width=9", model=f"{sized}:large")
    (here / "again.yaml").write_text(render.render_settings(run))
    again = resolved(model=None, configs=[here / "again.yaml"])
    assert (again.settings, again.warnings) == (run.settings, [])
    run = resolved("model.folder=.", "model.width=7", model=f"{sized}:large")
    assert [diagnostic.key for diagnostic in unused_diagnostics(run, ())] == ["model.width"]


def test_the_first_size_or_that_of_the_class_is_the_default(sized, here):
    assert resolved(model=sized).settings.model.size == "small"
    assert resolved(model=sized).settings.model.width == 2
    width = resolved(model=f"{sized}:large").values["model.width"]  # selected after a colon
    assert (width.value, width.origin.layer) == (9, "family")
    assert width.origin.where.endswith(":6")
    [error] = refused(model=f"{sized}:larg")
    assert (error.key, error.did_you_mean) == ("model.size", "large")
    text = HEAD + LINE.replace('"train.epochs": 2', '"model.size": "large"') + SIZES + BODY
    name = write(here, text)
    assert resolved(model=f"{name}:Line").settings.model.width == 9
    name = write(here, text.replace('"large", "train"', '"huge", "train"'))
    [error] = refused(model=f"{name}:Line", mode="lite")
    assert (error.key, error.value) == ("model.size", "huge") and error.where.startswith(
        f"{name}.py:6"
    )


def test_every_mode_applies_to_a_custom_task_without_a_warning(line):
    for mode, model in zip(MODES, cycle(["images:Images", "images:Images:large"]), strict=False):
        for machine, world_size in ((SERVER, None), (SERVER, 2)):
            run = resolved(model=model, mode=mode, machine=machine, world_size=world_size)
            assert run.warnings == []
            assert run.settings.mode == mode
    fast = resolved(model=line, mode="fast")
    assert (fast.settings.train.epochs, fast.settings.optim.lr) == (1, 2e-3)


def test_an_unknown_key_among_the_defaults_or_a_size_of_none_is_an_error(line, here):
    errors = refused("model.widht=3", model=f"{line}:large")
    assert {error.where for error in errors} == {"--set model.widht=3", f"--model {line}:large"}
    name = write(here, HEAD + LINE.replace('"train.epochs": 2', '"train.epoch": 2') + BODY)
    assert refused(model=f"{name}:Line")[0].where == f"{name}.py:6 train.epoch"


WIDTH, DEFAULTS = "width: int = 4", '{"train.epochs": 2, "train": {"micro_batch": 4}}'


def test_a_declaration_that_cannot_be_settings_is_an_error_with_its_line(here):
    for old, new, named, line in (
        (WIDTH, "width: int", "width", 9),
        (WIDTH, "size: str = 's'", "size", 9),
        (WIDTH, "when: set = {1}", "Model", 9),
        (WIDTH, "width: int = 'x'", "width", 9),
        ("Model(BaseModel)", "Model(nn.Module)", "Line.Model", 6),
        (DEFAULTS, "{}\n    sizes = {'tiny': 3}", "Line.sizes", 6),
        (DEFAULTS, "3", "Line.defaults", 6),
    ):
        name = write(here, HEAD + LINE.replace(old, new) + BODY)
        [error] = refused(model=f"{name}:Line")
        assert named in error.message
        assert error.where == f"--model {name}:Line; {name}.py:{line}"


def test_a_resumed_run_is_found_and_keeps_its_custom_task_and_settings(line, here):
    name = line.partition(":")[0]
    folder = trained(here / "runs" / "mine", resolved("model.width=9", model=line), 2)
    found = checkpoint_search.find(CliArgs(model=line, resume="auto"), None)
    assert found is not None and found.folder.samefile(folder)
    assert checkpoint_search.find(CliArgs(model=f"{name}:Other", resume="auto"), None) is None
    decision = decide(CliArgs(resume=str(folder)), None, LAPTOP)
    assert decision.resolved.settings.model.width == 9
    with pytest.raises(SettingsError, match="model language differs from mine"):
        decide(CliArgs(model="language", resume=str(folder)), None, LAPTOP)
