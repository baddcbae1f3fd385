"""Default settings are adapted to the machine; settings of the user are not."""

import re
from dataclasses import replace

import pytest

from launcher.base.diagnostics import SettingsError
from tests.launcher.given import LAPTOP, NEW_CPU, SERVER, resolved


@pytest.mark.parametrize(
    ("machine", "precision"),
    [
        (LAPTOP, "fp32"),
        (NEW_CPU, "fp32"),
        (SERVER, "bf16"),
        (replace(SERVER, gpu_bf16=False), "fp32"),
        (replace(LAPTOP, device="mps", gpus=1), "fp32"),
    ],
)
def test_the_default_precision_is_bf16_on_a_gpu_that_has_it(machine, precision):
    run = resolved(model="language", machine=machine)
    value = run.values["precision"]
    assert run.settings.precision == precision
    assert value.origin.layer == "adapted to this machine"
    assert {old for old, _ in value.replaced} == {"auto"}


RESOURCE_EFFICIENT = {"model": "language", "mode": "resource-efficient"}


@pytest.mark.parametrize(
    ("machine", "precision"), [(LAPTOP, "fp32"), (NEW_CPU, "bf16"), (SERVER, "fp16")]
)
def test_fp16_of_a_mode_becomes_what_the_machine_has(machine, precision):
    run = resolved(**RESOURCE_EFFICIENT, machine=machine)
    assert run.settings.precision == precision
    value = run.values["precision"]
    assert (value.origin.layer == "adapted to this machine") == (machine.device == "cpu")


def test_an_adapted_setting_is_noted_with_the_old_value_and_the_reason():
    notes = resolved(**RESOURCE_EFFICIENT, machine=NEW_CPU).notes
    lines = [re.sub(r":\d+:", ":N:", note) for note in notes]
    assert (
        "precision: bf16 instead of fp16 of ds_configs/models/language.yaml:N: "
        "no GPU, and this CPU computes in bf16"
    ) in lines


STAGE = {"model": "eeg_text", "mode": "staged"}


@pytest.mark.parametrize("engine", ["fsdp", "fsdp-offload", "zero1", "zero3", "zero2-offload"])
def test_adafactor_of_a_stage_becomes_adamw_under_sharded_weights(engine):
    run = resolved("stages=[encoder]", f"engine.name={engine}", **STAGE, machine=SERVER)
    assert run.settings.optim.name == "adamw"
    assert run.values["optim.name"].origin.layer == "adapted to this machine"
    (note,) = [note for note in run.notes if note.startswith("optim.name")]
    assert note.endswith(
        f"engine {engine} shards weights, and adafactor needs whole rows and columns"
    )


@pytest.mark.parametrize("engine", ["local", "ddp", "oss"])
def test_adafactor_stays_under_unsharded_weights(engine):
    run = resolved("stages=[encoder]", f"engine.name={engine}", **STAGE, machine=SERVER)
    assert run.settings.optim.name == "adafactor"


def test_adafactor_set_by_the_user_is_refused_under_sharded_weights():
    with pytest.raises(SettingsError) as error:
        resolved("optim.name=adafactor", "engine.name=zero2", model="language", machine=SERVER)
    (diagnostic,) = error.value.diagnostics
    assert diagnostic.allowed == "adamw, sgd under engine zero2; adafactor under local, ddp, oss"
    assert (diagnostic.key, diagnostic.did_you_mean) == ("optim.name", "adamw")


def test_muon_is_refused_under_engines_that_cut_matrices_into_flat_parts():
    for engine in ("local", "ddp", "oss", "fsdp", "fsdp-offload"):
        run = resolved("optim.name=muon", f"engine.name={engine}", model="language")
        assert run.settings.optim.name == "muon"
    with pytest.raises(SettingsError) as error:
        resolved("optim.name=muon", "engine.name=zero3", model="language", machine=SERVER)
    (diagnostic,) = error.value.diagnostics
    able = "muon under local, ddp, fsdp, fsdp-offload, oss"
    assert diagnostic.allowed == f"adamw, sgd under engine zero3; {able}"


def test_debugging_turns_workers_off_and_determinism_on():
    run = resolved("train.debug=true", model="language", machine=SERVER)
    assert (run.settings.loader.workers, run.settings.train.deterministic) == (0, True)
    assert run.values["loader.workers"].origin.where == "--set train.debug=true"
    run = resolved("train.debug=true", "loader.workers=2", model="language", machine=SERVER)
    assert run.settings.loader.workers == 2


def test_fp16_set_by_the_user_is_refused_without_a_gpu():
    with pytest.raises(SettingsError, match="needs a GPU"):
        resolved(machine=NEW_CPU, precision="fp16")
    with pytest.raises(SettingsError, match="needs a GPU"):
        resolved("device=cpu", machine=SERVER, precision="fp16")
    assert resolved(machine=SERVER, precision="fp16").settings.precision == "fp16"
    assert resolved(machine=LAPTOP, precision="bf16").settings.precision == "bf16"


def test_a_device_set_by_the_user_overrides_the_detected_one():
    run = resolved("device=cpu", model="language", machine=SERVER)
    assert (run.device, run.nproc, run.settings.precision) == ("cpu", 1, "fp32")
    assert run.settings.device == "cpu"
    assert resolved(machine=SERVER).settings.device == "auto"


@pytest.mark.parametrize(("nproc", "workers"), [("1", 4), ("2", 4), ("4", 2), ("8", 1)])
def test_workers_are_capped_at_the_cores_a_process_has(nproc, workers):
    run = resolved(model="language", machine=NEW_CPU, nproc=nproc)
    assert run.settings.loader.workers == workers


def test_workers_set_by_the_user_are_kept_and_memory_is_pinned_for_cuda_only():
    run = resolved("loader.workers=9", model="language", machine=LAPTOP)
    assert run.settings.loader.workers == 9
    assert resolved(model="language", machine=SERVER).settings.loader.pin_memory
    assert not resolved(model="language", machine=LAPTOP).settings.loader.pin_memory


def test_unavailable_flash_attention_and_compilation_are_refused():
    with pytest.raises(SettingsError, match="needs a GPU"):
        resolved("memory.attention=flash")
    with pytest.raises(SettingsError, match=r"needs a C\+\+ compiler"):
        resolved("compile=on", machine=replace(LAPTOP, compiler=False))
    assert resolved("compile=on").settings.compile == "on"


@pytest.mark.parametrize(
    ("machine", "compiled"),
    [(SERVER, "on"), (NEW_CPU, "off"), (replace(SERVER, compiler=False), "off")],
)
def test_compilation_left_open_is_decided_by_gpu_and_compiler(machine, compiled):
    run = resolved(machine=machine)
    assert run.settings.compile == compiled
    assert run.values["compile"].replaced[0][0] == "auto"


def test_epochs_set_by_the_user_lift_the_step_limit_of_the_size():
    assert resolved().settings.train.max_steps == 60
    run = resolved(epochs="3")
    assert run.settings.train.max_steps is None
    assert run.values["train.max_steps"].origin.where == "--epochs 3 sets the length"
    assert resolved(epochs="3", max_steps="7").settings.train.max_steps == 7


def test_more_processes_than_gpus_are_refused():
    assert resolved(machine=SERVER, nproc="4").nproc == 4
    with pytest.raises(SettingsError) as raised:
        resolved(machine=SERVER, nproc="8")
    assert raised.value.diagnostics[0].did_you_mean == "4"


def test_more_processes_than_cores_are_a_warning():
    assert not resolved(machine=LAPTOP, nproc="2").warnings
    run = resolved(machine=LAPTOP, nproc="4", model="language")
    assert run.nproc == 4
    assert [found.key for found in run.warnings] == ["engine.nproc"]
    assert "which they share" in run.warnings[0].message
