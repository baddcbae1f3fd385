"""The layers whose numbers depend on the split of a batch are found, whatever way they draw."""

import pytest

from gearshift.launcher.saved_runs.split_layers import LOSS, split_layers
from tests.launcher.custom_tasks import HEAD, LINE, write
from tests.launcher.given import resolved

TASK = f"""\
import random
import torch.nn.functional as F
{HEAD}
class Calls(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        return self.function(x)

class Counts(Calls):
    def forward(self, x):
        self.seen += len(x)
        return x

class Replaces(Calls):
    def forward(self, x):
        self.seen = self.seen + len(x)
        return x

def attention(p):
    return lambda x: F.scaled_dot_product_attention(x[None], x[None], x[None], dropout_p=p)[0]

{LINE}
    def samples(self, split):
        return [(torch.full((2,), float(i)), float(i % 2)) for i in range(8)]

    def build(self):
        return nn.Sequential(nn.Linear(2, 4), LAYERS, nn.Linear(4, 1))

    def measure(self, model, batch):
        error = model(batch["input"]).squeeze(1) - batch["target"].float()
        return {{"loss": error.square().sum() + DRAWN}}
"""
DEPENDING = {
    "nn.Dropout(0.5)": "Dropout",
    "nn.AlphaDropout(0.5)": "AlphaDropout",
    "nn.RReLU()": "RReLU",
    "nn.BatchNorm1d(4)": "BatchNorm1d",
    "nn.BatchNorm1d(4, track_running_stats=False)": "BatchNorm1d",
    "Counts(None)": "Counts",
    "Replaces(None)": "Replaces",
    "Calls(lambda x: x * (torch.rand(4) > 0.5))": "Calls",
    "Calls(F.dropout)": "Calls",
    "Calls(attention(0.5))": "Calls",
}
EQUAL = (
    *(
        "nn.ReLU()",
        "nn.Dropout(0.0)",
        "nn.LayerNorm(4)",
        "nn.SyncBatchNorm(4)",
        "Calls(attention(0.0))",
    ),
    "Calls(lambda x: F.dropout(x, 0.5, training=False))",
)


@pytest.fixture
def found_in(here, search_path):
    """The layers that are found in a model of `layers`, with a loss that adds `drawn`."""

    def found(layers, drawn="0"):
        name = write(here, TASK.replace("LAYERS", ", ".join(layers)).replace("DRAWN", drawn))
        return split_layers(resolved(model=f"{name}:Line"), 0)

    return found


def test_layers_that_draw_or_use_the_whole_micro_batch_are_found_and_no_others(found_in):
    expected = {}
    for number, kind in enumerate(DEPENDING.values(), start=1):
        expected.setdefault(kind, []).append(str(number))
    assert {kind: sorted(names, key=int) for kind, names in found_in(DEPENDING).items()} == expected
    assert found_in(EQUAL) == {}


def test_a_pass_that_depends_on_values_is_computed(found_in):
    layers = ["Calls(lambda x: x[x.sum(1) > -9].sum() + x)", "nn.Dropout(0.0)", "Calls(F.dropout)"]
    assert found_in(layers) == {"Calls": ["3"]}


def test_a_pass_that_fails_on_a_cpu_leaves_the_dropout_of_the_model(found_in):
    assert found_in(['Calls(lambda x: x.to("cuda"))', "nn.Dropout(0.5)"]) == {"Dropout": ["2"]}


@pytest.mark.parametrize("drawn", ["torch.rand(())", "random.random()"])
def test_a_task_that_draws_outside_of_its_model_is_found(found_in, drawn):
    assert found_in(["nn.ReLU()"], drawn) == {"task": [LOSS]}


FAMILIES = {
    "language:tiny": set(),
    "abr:tiny": {"FiLM"},
    "doc_translation:tiny": set(),
    "eeg_text:tiny": {"MaskedBatchNorm"},
    "event_seg:tiny": {"Norm"},
}


@pytest.mark.slow
@pytest.mark.parametrize("model", FAMILIES)
def test_families_have_the_layers_that_the_docs_name(model):
    assert {*split_layers(resolved(model=model), 0)} == FAMILIES[model]
