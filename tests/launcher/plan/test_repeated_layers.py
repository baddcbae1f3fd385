"""The trace of a deep model from its first layers, against that of all of them."""

from dataclasses import replace

import numpy as np
import pytest
import transformers

from gearshift.launcher.plan.plan import open_planner
from gearshift.launcher.plan.repeated_layers import repeat_layer
from gearshift.launcher.plan.storages import Moments
from gearshift.launcher.plan.target import Described
from tests.launcher.given import SERVER, resolved
from tests.launcher.plan.test_placement import TRACE
from tests.models.language.test_pretrained import TEXT, save

LAYERS = 12
ADAPTED = ("model.lora.rank=16", "memory.activation_checkpointing=full", "precision=bf16")


@pytest.fixture
def deep(tmp_path):
    """The settings of a model of many layers, which has no weights."""
    config = transformers.LlamaConfig(
        vocab_size=320,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
    folder = save(tmp_path / "model", config)
    for path in folder.glob("*.safetensors"):
        path.unlink()
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    paths = (f"model.pretrained={folder}", f"data.path={tmp_path / 'text.txt'}")
    return (*paths, "data.seq_len=32", "train.micro_batch=1", "train.global_batch=4")


@pytest.mark.parametrize(
    ("engine", "sets"),
    [
        ("local", ADAPTED),
        *(
            pytest.param(engine, sets, marks=pytest.mark.slow)
            for engine, sets in (
                ("local", ("precision=bf16", "train.ema=0.9")),
                ("local", ("precision=fp32", "optim.state=int8")),
                ("fsdp", ("precision=bf16",)),
                ("zero3", ("precision=bf16",)),
            )
        ),
    ],
)
def test_it_has_the_peaks_and_numbers_of_all_layers(deep, engine, sets):
    machine = replace(SERVER, gpus=1 if engine == "local" else 2)
    run = resolved("compile=off", *deep, *sets, machine=machine, engine=engine, model="language")
    with open_planner(run, Described(machine)) as planner:
        depths = []
        task = planner._task
        shortened = task.shortened
        task.shortened = lambda layers: depths.append(layers) or shortened(layers)
        found = planner.plan(run)
        assert depths == [2, 3, 4]
        planner._traces.clear()
        task.num_layers = lambda: None
        whole = planner.plan(run)
    assert depths == [2, 3, 4], "all layers at once"
    for kind, held in whole.device.items():
        assert found.device[kind] == pytest.approx(held, abs=2**12, rel=1e-3), kind
    assert found.placed.sent_bytes == pytest.approx(whole.placed.sent_bytes)
    same = ("sizes", "groups", "weight_bytes", "slot_bytes", "flops", "launches")
    for name in (*same, "buffer_bytes", "checkpoint_bytes"):
        assert getattr(found.trace, name) == getattr(whole.trace, name), name


def test_layers_that_differ_are_all_traced(deep):
    run = resolved("compile=off", *deep, machine=replace(SERVER, gpus=1), model="language")
    with open_planner(run, Described(SERVER)) as planner:
        task = planner._task
        shortened = task.shortened

        def wider(layers):  # the last one of those that are looked at
            task = shortened(layers)
            if layers == 4:
                task.source.lora = task.source.lora.model_copy(update={"rank": 4})
                task.source.has_adapters = True
            return task

        task.shortened = wider
        assert len(planner.plan(run).trace.sizes) == 3 + 9 * LAYERS


def test_what_a_layer_adds_is_repeated_and_rows_of_all_grow():
    def trace(layers):
        """Each layer holds 4 KiB and releases it, below a tensor of 2 KiB a layer."""
        held = [2 * layers, *(2 * layers + 4 * n for n in range(1, layers + 1))]
        held += [*held[-2::-1], 0]
        rows = np.zeros((len(held), 6), np.int64)
        rows[:, 3] = 2**10 * np.array(held)
        phase = np.ones(len(held), np.int64)
        moments = Moments(phase, rows, np.zeros_like(phase))
        return replace(TRACE, moments=moments, sizes=[7] + [5] * layers, groups=[[5] * layers, []])

    found = repeat_layer(trace(2), trace(3), 7)
    assert found.sizes == [7] + [5] * 9 and found.groups == [[5] * 9, []]
    assert found.moments.peak == trace(9).moments.peak
    assert repeat_layer(trace(3), trace(2), 1) is None
