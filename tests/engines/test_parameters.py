"""Special models train as in a plain loop of PyTorch, or are refused before their first update."""

from dataclasses import replace

import pytest
import torch

from gearshift.engines.base import EngineError
from gearshift.engines.catalog import ENGINES
from gearshift.engines.parameters import check_parameters
from gearshift.training.checkpoint.tensor_file import DTYPES
from tests.engines.custom_models import CASES, in_a_plain_loop, trained_or_refused
from tests.engines.test_parity import SLOW, able_mark

FSDP = {"fsdp", "fsdp-offload"}
ZERO = {name for name, entry in ENGINES.items() if entry.ds_config}
WHOLE = {"local", "ddp", "oss"}
REFUSING = {
    "complex": {*ENGINES},
    "frozen complex": {*ENGINES},
    "complex buffer": {*ENGINES},
    "float64": ZERO,
    "hook": FSDP,
    "hook after": FSDP | ZERO,
    "hook in the first": FSDP,
}
CHANGE_IN_FORWARD = ("max_norm", "frozen max_norm", "renorm")
OWN_OPTIMIZER = ("dampening", "lion")
"""Settings refuse these tasks under engines that need a package."""
FAST = {
    "complex": ("fsdp",),
    "frozen complex": ("local",),
    "complex buffer": ("ddp",),
    "complex table": ("zero3",),
    "float64": ("ddp", "zero2"),
    "buffers": ("ddp", "fsdp", "zero1"),
    "whole numbers": ("fsdp-offload",),
    "hook": ("ddp", "fsdp", "zero3"),
    "hook after": ("ddp", "zero2"),
    "first of three": ("ddp", "zero2"),
    "first of four": ("fsdp", "zero3"),
    "hook in the first": ("ddp", "oss"),
    "module hook": ("fsdp",),
    "max_norm": ("ddp",),
    "frozen max_norm": ("zero1",),
    "renorm": ("ddp", "fsdp", "zero3"),
    "parametrized": ("zero2-offload",),
    "dampening": ("fsdp",),
    "lion": ("local",),
    "bf16": ("ddp",),
}
FAST_RESUMES = {
    "float64": ("ddp",),
    "buffers": ("fsdp",),
    "dampening": ("ddp",),
    "lion": ("local",),
}


def matrix(fast):
    """Each case under each engine on one and two ranks; those of `fast` are, on two."""
    for case in CASES:
        for engine, entry in ENGINES.items():
            if case in OWN_OPTIMIZER and entry.needs:
                continue
            for size in (1, 2):
                marks = [able_mark(engine)]
                if size == 1 or engine not in fast.get(case, ()):
                    marks.append(SLOW)
                yield pytest.param(case, engine, size, marks=marks, id=f"{case}-{engine}-{size}")


def is_refused(case, engine, size):
    if case in CHANGE_IN_FORWARD:
        return engine not in WHOLE or size > 1
    return engine in REFUSING.get(case, ())


@pytest.mark.parametrize(("case", "engine", "size"), matrix(FAST))
def test_a_special_model_trains_as_in_a_plain_loop_or_is_refused(worlds, case, engine, size):
    ranks = worlds[size].run(trained_or_refused, engine, case)
    if is_refused(case, engine, size):
        assert [f"'{CASES[case].named}'" in rank for rank in ranks] == [True] * size, ranks
        return
    plain, tolerance = in_a_plain_loop(case), CASES[case].tolerance
    for rank in ranks:
        assert rank.losses == pytest.approx(plain.losses, rel=tolerance)
    for name, buffer in ranks[0].buffers.items():
        expected = plain.buffers[name].double()
        torch.testing.assert_close(buffer.double(), expected, rtol=tolerance, atol=tolerance)
    start = in_a_plain_loop(case, last=0)
    for rank in ranks:
        for (kind, name, first), part in rank.tensors.items():
            if kind not in ("weight", "ema"):
                continue
            expected = moved(plain, start, kind, name)[first:][: len(part)]
            # What it has moved: an average moves a thousandth of its weight in a step.
            is_moved = part.double() - start.tensors[kind, name, 0].reshape(-1)[first:][: len(part)]
            allowed = 1e-7 + 10 * tolerance * float(expected.abs().max()) if len(part) else 0.0
            torch.testing.assert_close(is_moved, expected, rtol=0, atol=allowed)


@pytest.mark.parametrize(
    ("case", "engine", "size"),
    [
        row
        for row in matrix(FAST_RESUMES)
        if not is_refused(*row.values) and CASES[row.values[0]].micro_batches == 2
    ],
)
def test_a_special_model_continues_bit_equal_from_its_checkpoint(
    worlds, tmp_path, case, engine, size
):
    whole = worlds[size].run(trained_or_refused, engine, case)
    for last in (1, 3):  # with a layer without a gradient so far, and after it got one
        folder = tmp_path / f"{last}"
        folder.mkdir()
        worlds[size].run(trained_or_refused, engine, case, last, folder)
        second = worlds[size].run(trained_or_refused, engine, case, 4, folder, last + 1)
        for rank, expected in zip(second, whole, strict=True):
            assert rank.losses == expected.losses[last:]
            assert rank.tensors.keys() == expected.tensors.keys()
            for key, part in expected.tensors.items():
                assert torch.equal(rank.tensors[key], part), key
            for key, buffer in expected.buffers.items():
                assert torch.equal(rank.buffers[key].double(), buffer.double()), key


def moved(end, start, kind, name):
    return (end.tensors[kind, name, 0].double() - start.tensors[kind, name, 0].double()).reshape(-1)


@pytest.mark.parametrize("engine", [n for n in ENGINES if n not in ZERO])
def test_an_engine_under_another_name_refuses_float16_as_the_first(monkeypatch, engine):
    monkeypatch.setitem(ENGINES, "copied", replace(ENGINES[engine], name="copied"))
    model = torch.nn.Linear(2, 2).half()
    for name in (engine, "copied"):
        with pytest.raises(EngineError, match="'weight'"):
            check_parameters(model, [], name, 1, DTYPES)


def shared_by_data(transposed=False):
    """A model whose second weight is a view of the first one."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    weight = model[0].weight.data
    model[1].weight.data = weight.t() if transposed else weight
    return model


@pytest.mark.parametrize("engine", ENGINES)
def test_parameters_that_share_memory_train_where_they_stay_together(engine):
    if engine in ("local", "ddp"):
        check_parameters(shared_by_data(), [], engine, 2, DTYPES)
    else:
        with pytest.raises(EngineError, match=r"'0\.weight' and '1\.weight'"):
            check_parameters(shared_by_data(), [], engine, 2, DTYPES)
    for model, device in ((shared_by_data(transposed=True), "cpu"), (shared_by_data(), "cuda")):
        with pytest.raises(EngineError, match=r"'0\.weight' and '1\.weight'"):
            check_parameters(model, [], engine, 2, DTYPES, device)


def test_parts_of_one_flat_tensor_share_no_memory():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    flat = torch.randn(18)
    model[0].weight.data = flat[:9].view(3, 3)
    model[1].weight.data = flat[9:].view(3, 3)
    check_parameters(model, [], "fsdp", 2, DTYPES)
    columns = torch.randn(3, 6)
    model[0].weight.data = columns[:, :3]
    model[1].weight.data = columns[:, 3:]
    check_parameters(model, [], "fsdp", 2, DTYPES)
