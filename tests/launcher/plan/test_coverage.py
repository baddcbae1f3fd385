"""Plans of what runs: every family and engine, and pretrained folders."""

from dataclasses import replace

import pytest

from gearshift.engines.catalog import ENGINES
from gearshift.launcher.commands.new_task import template
from gearshift.launcher.config import custom_task
from gearshift.launcher.plan.plan import open_planner, plan_run
from gearshift.launcher.plan.storages import Kind
from gearshift.launcher.plan.target import Described
from gearshift.models.catalog import FAMILIES
from tests.launcher.custom_tasks import BODY, HEAD, LINE, write
from tests.launcher.given import LAPTOP, SERVER, resolved
from tests.launcher.hub import serving_hub
from tests.models.language.test_pretrained import CONFIGS, TEXT, save

TWO_GPUS = replace(SERVER, gpus=2)


def plan(*sets, machine=LAPTOP, **choice):
    run = resolved("compile=off", *sets, machine=machine, **choice)
    return plan_run(run, Described(machine))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_under_every_engine(family):
    """Plans of one task share its data, and engines that compute alike a trace."""

    def under(engine):
        machine = replace(SERVER, gpus=1) if engine == "local" else TWO_GPUS
        return resolved("compile=off", machine=machine, model=f"{family}:tiny", engine=engine)

    with open_planner(under("local"), Described(TWO_GPUS)) as planner:
        for engine in ENGINES:
            found = planner.plan(under(engine))
            assert found.engine == engine
            assert found.device_bytes > found.parameters / 2, engine
            assert (found.placed.sent_bytes > 0) == (engine != "local"), engine


@pytest.mark.slow
def test_a_pretrained_language_model_is_planned_from_its_config_alone(tmp_path, monkeypatch):
    folder = save(tmp_path / "model", CONFIGS["llama"]())
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    given = (f"data.path={tmp_path / 'text.txt'}", f"model.pretrained={folder}")
    sets = ("data.seq_len=32", "model.lora.rank=4", "precision=bf16")
    whole = plan(*sets, *given, model="language", engine="local")
    for path in folder.glob("*.safetensors"):
        path.unlink()
    found = plan(*sets, *given, model="language", engine="local")
    with serving_hub(tmp_path / "home", monkeypatch) as server:  # as one of the hub
        server.add("org/tiny", folder)
        named = (given[0], "model.pretrained=hf:org/tiny")
        assert plan(*sets, *named, model="language", engine="local").device == found.device
    assert found.device_bytes == pytest.approx(whole.device_bytes, rel=1e-3)
    assert (found.trace.flops, found.checkpoint_bytes) == (
        whole.trace.flops,
        whole.checkpoint_bytes,
    )
    assert found.parameters > 320 * 32 and found.trace.trainable < found.parameters
    # Adapters have fp32 weights, which checkpoints have alone.
    held = 2 * found.parameters + 2 * found.trace.trainable
    assert found.device[Kind.WEIGHTS] == pytest.approx(held, rel=0.01)
    assert found.checkpoint_bytes == 4 * 4 * found.trace.trainable


@pytest.mark.slow
def test_a_base_in_4_bits_takes_half_a_byte_a_weight(tmp_path):
    config = CONFIGS["llama"]()
    config.hidden_size, config.intermediate_size, config.head_dim = 256, 1024, 64
    folder = save(tmp_path / "model", config)
    (folder / "model.safetensors").unlink()  # a plan reads no weights
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")

    def planned(quantize):
        given = (
            f"data.path={tmp_path / 'text.txt'}",
            f"model.pretrained={folder}",
            "data.seq_len=32",
        )
        sets = ("precision=bf16", "model.lora.rank=4", f"model.quantize={quantize}")
        return plan(*given, *sets, model="language", engine="local")

    wide, narrow = planned("null"), planned("nf4")
    assert narrow.parameters == wide.parameters and narrow.trace.trainable == wide.trace.trainable
    assert narrow.checkpoint_bytes == wide.checkpoint_bytes
    linear = 3 * (2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 1024)
    saved = wide.device[Kind.WEIGHTS] - narrow.device[Kind.WEIGHTS]
    tables = 3 * 7 * 4 * 257
    assert saved == pytest.approx(linear * (2 - 4.127 / 8) - tables, rel=0.001)


def test_a_custom_task_and_the_template_are_planned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    custom_task.add_search_folder(str(tmp_path))
    line = write(tmp_path, HEAD + LINE + BODY)
    assert plan(model=f"{line}:Line").parameters == 2 * 4 + 4 + 4 + 1
    shapes = write(tmp_path, template("Shapes"))
    assert plan(model=f"{shapes}:Shapes").trace.flops > 0
    broken = write(tmp_path, HEAD + LINE + BODY.replace('batch["target"]', 'batch["goal"]'))
    with pytest.raises(KeyError, match="goal"):  # an error of the task itself is not hidden
        plan(model=f"{broken}:Line")


@pytest.mark.parametrize(
    ("line", "operation"),
    [
        ("error = error[error > 0]", "aten.nonzero"),
        ("error = error.repeat(int(error.detach().numpy().size > 0))", "numpy"),
    ],
)
def test_a_step_that_depends_on_values_is_measured(tmp_path, line, operation):
    custom_task.add_search_folder(str(tmp_path))
    body = BODY.replace("        return {", f"        {line}\n        return {{")
    module = write(tmp_path, HEAD + LINE + body)
    found = plan(model=f"{module}:Line")
    assert found.parameters == 2 * 4 + 4 + 4 + 1
    assert found.untraced is not None and operation in found.untraced
    number = (HEAD + LINE + body).split("\n").index(f"        {line}") + 1
    assert found.untraced.endswith(f" at {tmp_path / module}.py:{number}: {line}")
    assert found.as_json()["basis"] == "measured on this CPU"
