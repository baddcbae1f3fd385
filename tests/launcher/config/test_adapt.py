"""Default settings are adapted to the machine; settings of the user are not."""

from dataclasses import replace

from tests.launcher.given import LAPTOP, NEW_CPU, SERVER, refused, resolved

MAC = replace(LAPTOP, device="mps", gpus=1)
OLD_GPU = replace(SERVER, gpu_bf16=False)


def test_a_precision_of_no_user_becomes_one_that_the_machine_has():
    for model, mode, asked, precisions in (
        ("language", None, "auto", ("fp32", "fp32", "fp32", "bf16", "fp32")),
        ("language", "resource-efficient", "fp16", ("fp32", "bf16", "fp32", "fp16", "fp16")),
        ("abr", "fast", "bf16", ("fp32", "bf16", "fp32", "bf16", "fp16")),
    ):
        machines = (LAPTOP, NEW_CPU, MAC, SERVER, OLD_GPU)
        for machine, precision in zip(machines, precisions, strict=True):
            value = resolved(model=model, mode=mode, machine=machine).values["precision"]
            assert value.value == precision, (model, machine)
            is_adapted = value.origin.layer == "adapted to this machine"
            assert is_adapted == (precision != asked), (model, machine)
            assert not is_adapted or value.replaced[0][0] == asked


STAGE = {"model": "eeg_text", "mode": "staged"}


def test_adafactor_of_a_stage_becomes_adamw_under_sharded_weights():
    for engine in ("local", "ddp", "oss"):
        run = resolved("stages=[encoder]", f"engine.name={engine}", **STAGE, machine=SERVER)
        assert run.settings.optim.name == "adafactor", engine
    for engine in ("fsdp", "fsdp-offload", "zero1", "zero3", "zero2-offload"):
        run = resolved("stages=[encoder]", f"engine.name={engine}", **STAGE, machine=SERVER)
        assert run.settings.optim.name == "adamw", engine
        assert run.values["optim.name"].origin.layer == "adapted to this machine"
        (note,) = [note for note in run.notes if note.startswith("optim.name")]
        why = "shards weights, and adafactor needs whole rows and columns"
        assert note.endswith(f"engine {engine} {why}")


def test_an_optimizer_that_an_engine_cannot_run_is_refused():
    for optimizer, engine, able in (
        ("adafactor", "zero2", "local, ddp, oss"),
        ("muon", "zero3", "local, ddp, fsdp, fsdp-offload, oss"),
    ):
        named = (f"optim.name={optimizer}", f"engine.name={engine}")
        [found] = refused(*named, model="language", machine=SERVER)
        assert found.allowed == f"adamw, sgd under engine {engine}; {optimizer} under {able}"
        assert (found.key, found.did_you_mean) == ("optim.name", "adamw")
        for name in able.split(", "):
            run = resolved(f"optim.name={optimizer}", f"engine.name={name}", model="language")
            assert run.settings.optim.name == optimizer


def test_debugging_turns_workers_off_and_determinism_on():
    run = resolved("train.debug=true", model="language", machine=SERVER)
    assert (run.settings.loader.workers, run.settings.train.deterministic) == (0, True)
    assert run.values["loader.workers"].origin.where == "--set train.debug=true"
    run = resolved("train.debug=true", "loader.workers=2", model="language", machine=SERVER)
    assert run.settings.loader.workers == 2


def test_what_a_user_asks_for_and_the_machine_lacks_is_refused():
    for sets, machine, message in (
        (["precision=fp16", "device=cpu"], SERVER, "needs a GPU"),
        (["memory.attention=flash"], LAPTOP, "needs a GPU"),
        (["memory.empty_cache_every=100"], LAPTOP, "empty_cache_every 100 needs a GPU"),
        (["compile=on"], replace(LAPTOP, compiler=False), "needs a C++ compiler"),
    ):
        assert message in refused(*sets, machine=machine)[0].message
    for machine, precision in ((SERVER, "fp16"), (LAPTOP, "bf16")):
        assert resolved(machine=machine, precision=precision).settings.precision == precision
    assert resolved("compile=on").settings.compile == "on"
    run = resolved("memory.empty_cache_every=7", machine=SERVER)
    assert run.settings.memory.empty_cache_every == 7


def test_a_device_set_by_the_user_overrides_the_detected_one():
    run = resolved("device=cpu", model="language", machine=SERVER)
    assert (run.device, run.nproc, run.settings.precision) == ("cpu", 1, "fp32")
    assert run.settings.device == "cpu"
    assert resolved(machine=SERVER).settings.device == "auto"


def test_workers_are_capped_at_the_cores_a_process_has_and_memory_is_pinned_for_cuda():
    for nproc, workers in (("1", 4), ("2", 4), ("4", 2), ("8", 1)):
        run = resolved(model="language", machine=NEW_CPU, nproc=nproc)
        assert run.settings.loader.workers == workers, nproc
        assert not run.settings.loader.pin_memory
    run = resolved("loader.workers=9", model="language", machine=LAPTOP)
    assert run.settings.loader.workers == 9
    assert resolved(model="language", machine=SERVER).settings.loader.pin_memory


def test_compilation_left_open_is_decided_by_gpu_and_compiler():
    machines = {SERVER: "on", NEW_CPU: "off", replace(SERVER, compiler=False): "off"}
    for machine, compiled in machines.items():
        run = resolved(machine=machine)
        assert run.settings.compile == compiled, machine
        assert run.values["compile"].replaced[0][0] == "auto"


def test_epochs_set_by_the_user_lift_the_step_limit_of_the_size():
    assert resolved().settings.train.max_steps == 60
    run = resolved(epochs="3")
    assert run.settings.train.max_steps is None
    assert run.values["train.max_steps"].origin.where == "--epochs 3 sets the length"
    assert resolved(epochs="3", max_steps="7").settings.train.max_steps == 7


def test_more_processes_than_cores_are_a_warning():
    assert resolved(machine=SERVER, nproc="4").nproc == 4
    assert not resolved(machine=LAPTOP, nproc="2").warnings
    run = resolved(machine=LAPTOP, nproc="4", model="language")
    assert run.nproc == 4
    assert [found.key for found in run.warnings] == ["engine.nproc"]
    assert "which they share" in run.warnings[0].message
