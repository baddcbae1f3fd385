"""The chunks of an offloaded update: the numbers of DeepSpeed's step, and who waits for them."""

from threading import Event

import numpy as np
import pytest
import torch
from torch.optim import SGD, AdamW
from torch.optim.optimizer import register_optimizer_step_pre_hook

from engines.zero.offload_update import can_chunk, names_by_pass
from tests.engines.parity import TIME, Case, Net, joined, one_step, outcome, prepared, train

pytest.importorskip("deepspeed")

ENGINE = "zero2-offload"
CHUNK = 64
LAST = "blocks.2.hidden.2.weight"
TOKENS = torch.arange(2 * TIME).view(2, TIME)


def chunked(engine, module):
    """Update in small chunks, as one of the normal size is with offload to the host of a GPU."""
    engine._chunk_update(module.module, list(module.module.blocks), chunk=CHUNK)
    assert engine._offloaded
    return engine._offloaded


def train_in_chunks(world, case):
    with prepared(world, case) as (engine, module):
        chunked(engine, module)
        steps = [one_step(world, engine, module, case, step + 1) for step in range(case.steps)]
        return outcome(engine, steps)


def assert_same(outcomes, others):
    for mine, theirs in zip(outcomes, others, strict=True):
        np.testing.assert_array_equal(mine.losses, theirs.losses)
        np.testing.assert_array_equal(mine.norms, theirs.norms)
        assert (mine.steps, mine.skipped, mine.loss_scale) == (
            *(theirs.steps, theirs.skipped, theirs.loss_scale),
        )
    first, second = joined(outcomes), joined(others)
    assert first.keys() == second.keys()
    assert [key for key in first if not np.array_equal(first[key], second[key])] == []


CHANGES = [
    {"clip_norm": 0.3},
    {"clip_norm": None},
    {"clip_norm": 0.3, "precision": "bf16", "factors": True},
    {"clip_norm": 0.3, "precision": "fp16", "overflow_at": 3},
    {"clip_norm": 0.3, "overflow_at": 3},
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
@pytest.mark.parametrize("size", [1, 2])
def test_steps_in_chunks_are_those_of_deepspeed(worlds, size, changes):
    case = Case(ENGINE, steps=5, **changes)
    assert_same(worlds[size].run(train_in_chunks, case), worlds[size].run(train, case))


def resumed_in_chunks(world, case):
    """Two steps in chunks, and more by an engine that resumes from them."""
    with prepared(world, case) as (engine, module):
        chunked(engine, module)
        steps = [one_step(world, engine, module, case, step) for step in (1, 2)]
        state = outcome(engine, [])  # copies
    with prepared(world, case, seed=1) as (engine, module):
        chunked(engine, module)
        steps.append(one_step(world, engine, module, case, step=1))  # of another model
        steps.pop()
        saved = {(kind, name): torch.from_numpy(data) for kind, name, _, data, _ in state.pieces}
        now = engine.state()
        for piece in now.pieces:
            piece.data.copy_(saved[piece.kind, piece.name])
        for name, buffer in now.buffers.items():
            buffer.copy_(torch.from_numpy(state.buffers[name]))
        engine.load(state.steps, state.loss_scale)
        steps += [one_step(world, engine, module, case, step) for step in (3, 4, 5)]
        return outcome(engine, steps)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_has_the_steps_of_one_that_was_not_stopped(worlds, precision):
    case = Case(ENGINE, steps=5, clip_norm=0.3, precision=precision)
    assert_same(worlds[1].run(resumed_in_chunks, case), worlds[1].run(train, case))


def outputs_beside_the_update(world, case):
    """The outputs before a step, of a pass that starts while the last block is not updated, after.

    A pass that waits for all chunks would raise the error of the one that waits for block 0.
    """
    with prepared(world, case) as (engine, module), torch.no_grad():
        chunked(engine, module)
        (last,) = (p.data for p in engine.state().pieces if (p.kind, p.name) == ("weight", LAST))
        reached = Event()

        def hold(optimizer, *_):
            start = optimizer.param_groups[0]["params"][0].data_ptr()
            if last.data_ptr() <= start < last.data_ptr() + last.nbytes:
                assert reached.wait(60), "the forward pass waits for all chunks"

        module.eval()  # keeps the buffers
        outputs = [module(TOKENS)]
        hook = register_optimizer_step_pre_hook(hold)
        with torch.enable_grad():
            one_step(world, engine, module, case, step=1)
        module.module.blocks[0].register_forward_hook(lambda *_: reached.set())
        outputs += [module(TOKENS)]
        hook.remove()
        engine.settle()
        return [*outputs, module(TOKENS)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_pass_begins_before_the_last_block_is_updated(worlds, precision):
    case = Case(ENGINE, precision=precision)
    ((before, beside, after),) = worlds[1].run(outputs_beside_the_update, case)
    assert torch.equal(beside, after) and not torch.equal(before, after)


class Work:
    """A part of an update that runs when it is waited for."""

    def __init__(self, part):
        self._part = part

    def result(self):
        part, self._part = self._part, lambda: None
        part()


class Executor:
    """Has the work of a thread in a queue, until it is waited for."""

    def __init__(self):
        self.waiting = []

    def submit(self, call, *args):
        def part():
            call(*args)
            self.waiting.remove(work)

        work = Work(part)
        self.waiting.append(work)
        return work

    def shutdown(self):
        pass


def left_at(world, case):
    """How many chunks there are, and how many are not updated yet at some points of a run."""
    with prepared(world, case) as (engine, module):
        update, executor, left = chunked(engine, module), Executor(), {}
        update._thread = executor
        net = module.module

        def note(point):
            left[point] = len(executor.waiting)

        def after_an_update(name, *args):
            one_step(world, engine, module, case, step=1)
            if name == "settle":
                note("step")
            getattr(engine, name)(*args)
            note(name)

        after_an_update("settle")
        after_an_update("state")
        after_an_update("refresh")
        steps = {name: 9.0 for group in engine._names for name in group}
        after_an_update("load", steps, {})
        one_step(world, engine, module, case, step=1)
        net.register_forward_pre_hook(lambda *_: note("model"))
        for number, block in enumerate(net.blocks):
            block.register_forward_hook(lambda *_, point=f"block {number}": note(point))
        net.blocks = net.blocks[:2]
        loss = module(TOKENS).sum()
        loss.register_hook(lambda _: note("backward"))
        with engine.accumulate(last=True):
            engine.backward(loss)
        return len(update._order), left


def test_each_use_of_the_weights_waits_for_the_chunks_that_it_needs(worlds):
    ((count, left),) = worlds[1].run(left_at, Case(ENGINE))
    assert left.pop("step") == count
    passes = [left.pop(point) for point in ("model", "block 0", "block 1")]
    assert count > passes[0] > passes[1] > passes[2] > 0  # the last block has no pass
    assert left == {"settle": 0, "state": 0, "refresh": 0, "load": 0, "backward": 0}


def errors_of_an_update(world, case):
    """What is raised after an update without memory, by the next pass or by `settle`."""
    found = []
    with prepared(world, case) as (engine, module):
        chunked(engine, module)

        def fail(*_):
            raise MemoryError("no memory")

        for use in (lambda: module(TOKENS), engine.settle):
            with register_optimizer_step_pre_hook(fail):
                one_step(world, engine, module, case, step=1)
                with pytest.raises(MemoryError) as error:
                    use()
            found.append(str(error.value))
            engine._offloaded._running.clear()
    return found


def test_an_error_of_the_thread_is_raised_where_its_weights_are_needed(worlds):
    assert worlds[1].run(errors_of_an_update, Case(ENGINE)) == [["no memory", "no memory"]]


def step_without(world, case, name):
    """Whether the engine takes DeepSpeed's own step if DeepSpeed has no attribute `name`."""
    with prepared(world, case) as (engine, module):
        delattr(engine._zero, name)
        engine._chunk_update(module.module, list(module.module.blocks))
        return engine._offloaded is None and "step" not in vars(engine._zero)


@pytest.mark.parametrize("name", ["_offload_accumulated_param_ids", "bit16_groups_flat"])
def test_another_deepspeed_updates_by_itself(worlds, name):
    assert worlds[1].run(step_without, Case(ENGINE), name) == [True]


def test_an_optimizer_of_whole_tensors_is_left_to_deepspeed():
    parameter = torch.nn.Parameter(torch.ones(4))

    class Own(AdamW):
        pass

    assert can_chunk(AdamW([parameter], fused=True)) and can_chunk(SGD([parameter], fused=True))
    assert not can_chunk(AdamW([parameter])) and not can_chunk(Own([parameter], fused=True))


def test_a_weight_that_is_used_outside_of_its_block_is_one_of_the_model():
    net = Net()
    net.blocks[1].tied = net.head
    names = names_by_pass(net, list(net.blocks))
    assert {"embedding.weight", "positions", "seven", "norm.weight"} <= {*names[net]}
    assert "embedding.weight" in names[net.blocks[1]]
    assert not any(name.startswith("blocks.") for name in names[net])
