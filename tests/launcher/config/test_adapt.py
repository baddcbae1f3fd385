"""Default settings are adapted to the machine; settings of the user are not."""

from dataclasses import replace
from itertools import cycle

import pytest

from gearshift.launcher.config import presets
from gearshift.launcher.config.adapt import engine_options
from gearshift.launcher.config.schema import config_of
from tests.ds_configs.tables import SHIPPED
from tests.launcher.given import LAPTOP, NEW_CPU, ONE_GPU, SERVER, refused, resolved

MAC = replace(LAPTOP, cores=10, ram_bytes=32 * 2**30, gpus=1, device="mps")
OLD_GPU = replace(SERVER, gpu_bf16=False)
NO_TRITON = replace(SERVER, triton_lacks="the package triton")


def test_a_precision_of_no_user_becomes_one_that_the_machine_has():
    for model, mode, asked, precisions in (
        ("language", None, "auto", ("fp32", "fp32", "fp32", "bf16", "fp16")),
        ("language", "resource-efficient", "fp16", ("fp32", "bf16", "fp32", "fp16", "fp16")),
        ("abr", "fast", "bf16", ("fp32", "bf16", "fp32", "bf16", "fp16")),
    ):
        machines = (LAPTOP, NEW_CPU, MAC, SERVER, OLD_GPU)
        for machine, precision in zip(machines, precisions, strict=True):
            run = resolved(model=model, mode=mode, machine=machine)
            value = run.values["precision"]
            assert value.value == precision, (model, machine)
            is_adapted = value.origin.layer == "adapted to this machine"
            assert is_adapted == (precision != asked), (model, machine)
            assert not is_adapted or value.replaced[0][0] == asked
            notes = [
                note for note in run.notes if note.startswith(f"precision: {precision} instead of")
            ]
            assert len(notes) == (is_adapted and asked != "auto"), (model, machine)


MODES = [mode for mode in presets.modes() if mode != "staged"]
OFFLOADS = "memory.activation_offload=true"
STAGE = {"model": "eeg_text", "mode": "staged"}


def test_adafactor_of_a_stage_becomes_adamw_under_sharded_weights():
    run = resolved("stages=[encoder]", "engine.name=oss", **STAGE, machine=SERVER)
    assert run.settings.optim.name == "adafactor"
    for engine in ("fsdp", "zero2-offload"):
        run = resolved("stages=[encoder]", f"engine.name={engine}", **STAGE, machine=SERVER)
        assert run.settings.optim.name == "adamw", engine
        assert run.values["optim.name"].origin.layer == "adapted to this machine"
        (note,) = [note for note in run.notes if note.startswith("optim.name")]
        assert f"engine {engine}" in note


def test_each_engine_offloads_what_it_can():
    def layout(engine, *sets):
        run = resolved(*sets, engine=engine, machine=SERVER)
        return engine_options(run.settings, run, channels_last=False).ds_config

    states, everything = "engine.offload=states", "engine.offload=all"
    whole = layout("zero3-offload")["zero_optimization"]
    assert layout("zero3-offload", everything)["zero_optimization"] == whole
    kept = layout("zero3-offload", states)["zero_optimization"]
    assert {*whole} - {*kept} == {"offload_param"} and kept["offload_optimizer"]["device"] == "cpu"
    assert layout("zero2-offload", states) == layout("zero2-offload")


@pytest.mark.parametrize(
    ("key", "value", "engine", "able", "own"),
    [
        ("optim.name", "adafactor", "zero2", "local, ddp, oss", "adamw"),
        ("optim.name", "muon", "zero3", "local, ddp, fsdp, fsdp-offload, oss", "adamw"),
        ("engine.offload", "all", "zero2-offload", "fsdp-offload, zero3-offload", "states"),
        ("engine.offload", "states", "zero3", "zero2-offload, zero3-offload", "null"),
    ],
)
def test_what_an_engine_cannot_do_is_refused_with_those_that_can(key, value, engine, able, own):
    options = {"model": "language", "machine": SERVER}
    [found] = refused(f"{key}={value}", engine=engine, **options)
    assert (found.key, found.allowed, found.did_you_mean) == (key, f"{value} under {able}", own)
    for name in able.split(", "):
        assert resolved(f"{key}={value}", engine=name, **options).values[key].value == value


def test_what_a_user_asks_for_and_the_machine_lacks_is_refused():
    for sets, machine, message in (
        (["precision=fp16", "device=cpu"], SERVER, "no GPU"),
        (["memory.attention=flash"], LAPTOP, "no GPU"),
        (["memory.empty_cache_every=100"], LAPTOP, "no allocator cache"),
        (["compile=on"], replace(LAPTOP, compiler=False), "needs a C++ compiler"),
        (["compile=graphs"], LAPTOP, "no NVIDIA GPU"),
        (["compile=graphs", "engine.name=zero2"], SERVER, "engine zero2 moves"),
        (["compile=graphs", OFFLOADS], SERVER, "activation_offload moves"),
        ([OFFLOADS], MAC, "no NVIDIA or AMD GPU"),
        (["optim.name=muon", "optim.state=int8"], SERVER, "muon keeps its state in fp32"),
    ):
        assert message in refused(*sets, machine=machine)[0].message
    assert resolved("compile=graphs", machine=SERVER).settings.compile == "graphs"
    for machine, precision in ((SERVER, "fp16"), (LAPTOP, "bf16")):
        assert resolved(machine=machine, precision=precision).settings.precision == precision
    assert resolved("compile=on").settings.compile == "on"
    run = resolved("memory.empty_cache_every=7", machine=SERVER)
    assert run.settings.memory.empty_cache_every == 7


@pytest.mark.parametrize(
    ("sets", "options", "expected"),
    [
        # The mode's adafactor becomes AdamW under this engine.
        (
            ("stages=[encoder]", "optim.state=int8"),
            {**STAGE, "engine": "fsdp"},
            {"optim.state": "int8"},
        ),
        ((), {"mode": "resource-efficient", "engine": "local"}, {"optim.state": "bf16"}),
        ((), {"mode": "resource-efficient", "engine": "zero2-offload"}, {"optim.state": "fp32"}),
        (("optim.state=bf16",), {"engine": "zero2-offload"}, {"optim.state": "bf16"}),
        (("train.debug=true",), {}, {"loader.workers": 0, "train.deterministic": True}),
        (("train.debug=true", "loader.workers=2"), {}, {"loader.workers": 2}),
        (
            ("precision=fp32",),
            {"mode": "fast", "model": "doc_translation"},
            {"memory.attention": "auto"},
        ),
        ((), {"mode": "fast", "model": "doc_translation"}, {"memory.attention": "flash"}),
    ],
)
def test_defaults_follow_engine_device_and_other_settings(sets, options, expected):
    run = resolved(*sets, **{"model": "language", "machine": SERVER, **options})
    assert {key: run.values[key].value for key in expected} == expected


def test_more_processes_than_gpus_are_refused_and_workers_are_capped_at_the_cores():
    assert resolved(nproc="8").nproc == 8  # a rehearsal of a larger machine, on two cores
    for machine, nproc, most in ((LAPTOP, "33", 2), (ONE_GPU, "2", 1)):
        (error,) = refused(nproc=nproc, machine=machine)
        assert (error.key, error.fix) == ("engine.nproc", f"--nproc {most}")
    for nproc, workers in (("1", 4), ("2", 4), ("4", 2), ("8", 1)):
        run = resolved(model="language", machine=NEW_CPU, nproc=nproc)
        assert run.settings.loader.workers == workers, nproc
        assert not run.settings.loader.pin_memory
    run = resolved("loader.workers=9", model="language", machine=LAPTOP)
    assert run.settings.loader.workers == 9
    assert resolved(model="language", machine=SERVER).settings.loader.pin_memory


@pytest.mark.parametrize(
    ("key", "machine", "nproc", "most"),
    [
        ("loader.workers", LAPTOP, "1", 16),
        ("loader.workers", SERVER, "4", 64),
        ("engine.threads", SERVER, "1", 256),
    ],
)
def test_more_processes_or_threads_than_a_machine_bears_are_an_error(key, machine, nproc, most):
    assert not resolved(f"{key}={most}", machine=machine, nproc=nproc).warnings
    (error,) = refused(f"{key}={most + 1}", machine=machine, nproc=nproc)
    assert (error.key, error.allowed) == (key, f"at most {most} on this machine")


def test_compilation_left_open_is_decided_by_gpu_and_compiler():
    for machine, compiled in ((SERVER, "on"), (NEW_CPU, "off"), (NO_TRITON, "off")):
        run = resolved(machine=machine)
        assert run.settings.compile == compiled, machine
        assert run.values["compile"].replaced[0][0] == "auto"
        notes = [note for note in run.notes if note.startswith("compile")]
        is_told = machine is NO_TRITON
        assert notes == ["compile: off: it needs the package triton"] * is_told
        assert engine_options(run.settings, run, channels_last=False).eager_on_failure
    asked = resolved("compile=on", machine=SERVER)
    assert not engine_options(asked.settings, asked, channels_last=False).eager_on_failure


def test_epochs_set_by_the_user_lift_the_step_limit_of_the_size():
    assert resolved().settings.train.max_steps == 120
    run = resolved(epochs="3")
    assert run.settings.train.max_steps is None
    assert run.values["train.max_steps"].origin.where == "--epochs 3 sets the length"
    assert resolved(epochs="3", max_steps="7").settings.train.max_steps == 7


def test_a_mode_has_the_same_global_batch_and_steps_on_a_cpu_and_a_gpu():
    for family in SHIPPED:
        sizes = cycle(config_of(family).SIZES)
        for mode, size in zip(MODES, sizes, strict=False):
            model = f"{family}:{size}"
            default = resolved(model=model, machine=LAPTOP).batching
            cpu = resolved(model=model, mode=mode, machine=LAPTOP)
            gpu = resolved(model=model, mode=mode, machine=ONE_GPU)
            assert cpu.batching.global_batch == gpu.batching.global_batch, (model, mode)
            for key in ("train.epochs", "train.max_steps"):
                assert cpu.values[key].value == gpu.values[key].value, (model, mode)
            # Only larger steps keep the micro-batch of the default on a CPU.
            micro = gpu.batching.micro_batch
            if gpu.batching.global_batch > default.global_batch:
                micro = min(default.micro_batch, micro)
            assert cpu.batching.micro_batch == micro, (model, mode)


def test_batch_numbers_of_the_user_are_kept_on_a_cpu():
    for setting, micro_batch, global_batch in (
        ("train.micro_batch=64", 64, 128),
        ("train.accumulation=2", 64, 128),
        ("train.global_batch=64", 32, 64),
    ):
        batching = resolved(setting, model="abr", mode="fast", machine=LAPTOP).batching
        assert (batching.micro_batch, batching.global_batch) == (micro_batch, global_batch), setting


@pytest.mark.parametrize(
    ("sets", "are_unlike", "world_size", "shares"),
    [
        ((), True, None, "auto"),
        (("engine.nproc=1",), True, None, "equal"),
        (("engine.shares=[3,1]", "engine.nproc=2"), True, None, [3, 1]),
        ((), False, None, "equal"),
        ((), True, 4, "equal"),
        (("device=cpu", "engine.nproc=2"), True, None, "equal"),
    ],
)
def test_unlike_gpus_share_by_their_speed(sets, are_unlike, world_size, shares):
    unlike = replace(SERVER, are_unlike=are_unlike)
    run = resolved(*sets, machine=unlike, world_size=world_size)
    assert run.settings.engine.shares == shares
    assert any("engine.shares" in note for note in run.notes) == (shares == "auto")
