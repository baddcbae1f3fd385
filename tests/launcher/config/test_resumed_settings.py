"""A resumed run has its saved settings, overridden by arguments and adapted to the machine."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from gearshift.launcher.base.diagnostics import SettingsError
from gearshift.launcher.config import resumed_settings
from gearshift.launcher.config.provenance import Batching, CliArgs
from gearshift.launcher.config.resolve import resolve
from gearshift.launcher.run_folder import run_folder
from gearshift.training.storage import Storage
from tests.launcher.given import LAPTOP, SERVER, SHORT, errors_of, resolved
from tests.launcher.runs import begun

pytestmark = pytest.mark.usefixtures("here")


def resume_settings(first, *sets, machine=LAPTOP, world_size=None, engine=None, **options):
    """The settings of the resume of a run started with `first`."""
    if not Path("x").exists():
        begun(Path("x"), first)
    option_values = {
        SHORT[name]: (f"--{name.replace('_', '-')}", text) for name, text in options.items()
    }
    cli_args = CliArgs(sets=sets, engine=engine, options=option_values)
    return resolve(cli_args, machine, world_size, resumed_settings.read(Path("x")))


MANY = {
    "a mode": resolved(mode="fast"),
    "another size": resolved(model="language:small", mode="resource-efficient"),
    "the first run": resolved(model=None),
    "lists": resolved("optim.betas=[0.8, 0.9]", "data.path=embedded:commands", lr="3e-4"),
    "lengths": resolved("eval.every=2 epochs", "save.every=5%", epochs="3"),
    "a batch": resolved("train.global_batch=6", batch_size="3", nproc="2"),
    "accumulation": resolved("train.accumulation=4", batch_size="2"),
    "texts": resolved(
        "eval.metric=val_loss min", "train.on_nonfinite=skip 3", engine="zero3", nproc="2"
    ),
}


@pytest.mark.parametrize("name", MANY)
def test_settings_and_batch_stay_over_repeated_resumes_without_arguments(name):
    again = MANY[name]
    for _ in range(3):
        again = resume_settings(again)
        run_folder.rewrite_settings(Storage(Path("x")), again)
    # Python that trains a class forgets the classes of settings: by values.
    assert again.settings.model_dump() == MANY[name].settings.model_dump()
    assert again.batching == MANY[name].batching


def test_arguments_of_the_resume_override_saved_settings_which_name_their_line():
    again = resume_settings(resolved("train.seed=3", lr="3e-4", max_steps="20"), lr="1e-4")
    assert (again.settings.optim.lr, again.settings.train.seed) == (1e-4, 3)
    assert again.values["optim.lr"].origin.where == "--lr 1e-4"
    origin = again.values["train.seed"].origin
    assert origin.layer == "resumed run"
    number = int(origin.where.removeprefix("x/settings.yaml:"))
    assert Path("x/settings.yaml").read_text().splitlines()[number - 1] == "  seed: 3"
    longer = resume_settings(None, epochs="5")
    assert (longer.settings.train.max_steps, longer.settings.train.epochs) == (None, 5.0)


def test_more_or_fewer_processes_keep_the_global_batch():
    first = resolved("engine.max_restarts=3", batch_size="8", nproc="2", engine="zero2")
    again = resume_settings(first, engine="local")
    assert (again.nproc, again.settings.engine.name) == (1, "local")
    assert again.batching == Batching(8, 8, 1, 1)
    again = resume_settings(first, world_size=4)  # torchrun decides about processes and restarts
    assert again.batching == Batching(8, 2, 1, 4)
    assert (again.settings.engine.nproc, again.settings.engine.max_restarts) == (None, 0)


def test_the_saved_batch_does_not_conflict_with_new_arguments():
    first = resolved("train.global_batch=8", batch_size="8")
    micro_batch, accumulation = "train.micro_batch=2", "train.accumulation=4"
    for sets in ([accumulation], [micro_batch], [micro_batch, accumulation]):
        assert resume_settings(first, *sets).batching == Batching(8, 2, 4, 1), sets
    assert resume_settings(first, "train.global_batch=8").batching == Batching(8, 8, 1, 1)


def test_a_new_engine_has_its_own_settings():
    first = resolved("compile=on", engine="zero2", machine=SERVER)
    assert resume_settings(first, machine=SERVER).settings.compile == "on"
    assert resume_settings(first, engine="zero3", machine=SERVER).settings.compile == "off"
    shutil.rmtree("x")
    first = resolved(engine="zero3", machine=SERVER)
    assert first.settings.compile == "off"
    assert resume_settings(first, engine="ddp", machine=SERVER).settings.compile == "on"


def test_settings_adapted_to_the_old_machine_are_adapted_to_the_new_one():
    first = resolved(mode="fast", machine=SERVER)
    again = resume_settings(first, machine=LAPTOP)
    assert (first.settings.precision, again.settings.precision) != ("fp32", first)
    assert again.nproc == 1
    assert again.settings.loader.workers <= LAPTOP.cores
    assert again.settings.loader.pin_memory is False
    assert again.batching.global_batch == first.batching.global_batch


def test_a_saved_setting_of_the_user_is_refused_on_a_machine_without_support():
    first = resolved(nproc="4", machine=SERVER)
    [found] = errors_of(resume_settings, first, machine=replace(SERVER, gpus=2))
    assert (found.key, found.value, found.fix) == ("engine.nproc", 4, "--set engine.nproc=2")
    assert found.where.startswith("x/settings.yaml:")


def test_the_settings_of_the_folder_count_with_or_without_origins():
    first = resolved(mode="fast", lr="3e-4")
    begun(Path("x"), first)
    for broken in ("{", "[]", '{"optim.lr": 3}', json.dumps({"mode": {"layer": 5}})):
        Path("x/origins.json").write_text(broken)
        assert resume_settings(first).settings.optim.lr == 3e-4
    Path("x/origins.json").unlink()
    assert resume_settings(first).settings.optim == first.settings.optim
    shutil.rmtree("x")
    begun(Path("x"), resolved())
    text = Path("x/settings.yaml").read_text()
    assert "  clip_norm: 1\n" in text  # as if the default had been another one at the start
    Path("x/settings.yaml").write_text(text.replace("clip_norm: 1\n", "clip_norm: 0.5\n"))
    assert resume_settings(first).settings.optim.clip_norm == 0.5
    Path("x/settings.yaml").write_text("optim: {lr: 1e-3}\n")
    with pytest.raises(SettingsError):
        resumed_settings.read(Path("x"))


def test_model_and_mode_of_the_resume_add_no_layer():
    """So that only these settings differ and are refused."""
    begun(Path("x"), resolved())
    base = resumed_settings.read(Path("x"))
    again = resolve(CliArgs(model="language:small", mode="fast"), LAPTOP, None, base)
    assert (again.settings.model.size, again.settings.mode) == ("small", "fast")
    assert again.settings.optim == resolved().settings.optim
