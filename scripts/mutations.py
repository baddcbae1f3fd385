"""Mutations that fast tests must catch: small faults at lines that matter, one at a time.

    python -m scripts.mutations [--only N ...]

Changes a copy of the checkout, runs the named tests, and prints which test caught each mutation and
how long it took.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 60
"""For the tests of one mutation on two idle cores; what takes longer counts as missed."""
PYTEST = ("-m", "pytest", "-qx", "-n", "0", "--tb=no", "-p", "no:cacheprovider")
# A file and its tests; below them a fault in a line of its own, and the text that is replaced.
_TABLE = """
training/accumulate.py | training/test_accumulate.py
    losses are not scaled by the world size
        engine.world.size / max(count, 1) => 1 / max(count, 1)
    gradients are exchanged at the first micro-batch
        last=number == len(micro_batches) => last=number == 1
    parts of a loss with two terms are not scaled
        share = {term: main_units(units) / max(count, 1) => share = {term: 1
    units of the last micro-batch only
        total[term] = total.get(term, 0) + count => total[term] = count
    the loss of the last micro-batch is logged
        Accumulated(reduce(add, losses), parts => Accumulated(losses[-1], parts
training/agreement.py | training/test_agreement.py
    units of one rank only
        total = world.sum_later(addends) => total = addends.clone
    an action needs the vote of every rank
        enumerate(sums[:FLAG_BITS]) if vote) => enumerate(sums[:FLAG_BITS]) if vote == world.size)
    the error of rank 0, which may have none
        [:_MAX_ERROR_BYTES], first) => [:_MAX_ERROR_BYTES], 0)
    the error of the last rank that has one
        backwards = world.size - world.rank if => backwards = world.rank + 1 if
training/duration.py | training/test_duration.py
    a duration is rounded down
        return max(1, round(exact)) => return max(1, int(exact))
training/health.py | training/test_health.py
    a peak of the loss is called a high learning rate
        min(newest) > 1.5 * first > 0 => max(newest) > 1.5 * first > 0
    a resumed run must fall from its first loss
        not train_plan.first_step and not train_plan.experience => not train_plan.experience
training/interruption.py | edges/test_signals.py
    a signal is ignored in an evaluation
        return self._requested() & ENDING => return Action.NOTHING
training/loop.py | training/test_loop.py
    requests before the last step are dropped
        _act(run.last_requests(), run) => run.last_requests()
training/run_state.py | training/test_run_state.py
    a run resumes one step late
        self.step = train_plan.first_step => self.step = train_plan.first_step + 1
    every evaluation counts as due
        is_due=self._plan.evaluates_at(self.step) => is_due=True
    an evaluation that is owed is forgotten
        self._owes_evaluation = fact("owes_evaluation", False) => self._owes_evaluation = False
    scores on other data count after a reset
        if "data" not in resume_point.reset: => if True:
training/run_state.py | training/test_loop.py
    the last step is evaluated twice
        if self._evaluated_at == self.step or self._is_stopped => if self._is_stopped
training/run_state.py | training/test_resume.py
    a resumed run counts units from zero
        self._metrics.resume(fact("metrics", {"units": fact("units")})) => pass
training/run_state.py | training/optim/test_ema.py
    checkpoints lack the average
        average.joined(state) if average else state => state
training/seeds.py | training/test_seeds.py
    numpy is not seeded
        np.random.seed(number & 0xFFFF_FFFF) => pass
    all ranks draw the same
        derive(seed, "step", step, rank) => derive(seed, "step", step)
training/step_metrics.py | training/test_step_metrics.py
    the loss of one rank is logged
        loss=loss / world.size => loss=step.loss.item()
    a part is the mean over ranks of sums
        part / max(step.units, 1) for => part / max(step.units, 1) / world.size for
    timing has the warm-up
        seconds[warmup_steps:], (10, 50, 90) => seconds, (10, 50, 90)
    a line that a skipped step postpones is lost
        self._is_log_due = self._is_log_due or step.step == 1 => self._is_log_due = step.step == 1
training/step_timer.py | training/test_step_timer.py
    steps have the time of pauses
        self._steps_began += time.perf_counter() - began => pass
    the time of earlier processes is lost
        self._started -= wall_s => pass
    means are those of the whole run
        (self._line[part] - before[part]) / steps => self._line[part] / steps
training/stop_reason.py | training/test_loop.py
    an interrupted run evaluates and completes
        self.exit_code in (RUN_AGAIN, INTERRUPTED) => self.exit_code == RUN_AGAIN
training/storage.py | training/checkpoint/test_durability.py
    renamed before it is on the device
        os.fsync(file.fileno()) => pass
training/storage.py | training/test_storage.py
    a file is written in place
        return final.parent / f".{final.name}.new" => return final
    a link is followed where a file is written
        os.open(path, flags | os.O_NOFOLLOW => os.open(path, flags
    a fenced process writes
        self.check() => pass
    half a line stays in a file
        os.ftruncate(self._file, before.st_size) => pass
training/throughput.py | training/test_throughput.py
    MFU over the peak of one device
        (peak * world_size) => peak
    a part of a chip has the peak of the chip
        if any(f" {word.lower()} " in words for word in _OTHER): => if False:
    links are counted in both directions
        "link_gb_per_s": 1e9 / 2 => "link_gb_per_s": 1e9
training/train_plan.py | training/test_train_plan.py
    epochs count from the start of the run
        return (step - self.data_start) / self.steps_per_epoch => return step / self.steps_per_epoch
    evaluations are due from the start of the run
        since = step - self.data_start => since = step
    steps of an experience count from the start of the run
        max_steps += starts.data => pass
    an evaluation that two cadences require counts twice
        (due(lcm(*cadences)) if len(cadences) == 2 else 0) => 0
    stop.after is not read
        return min(self.total_steps, self.stop_after or self.total_steps) => return self.total_steps
training/callbacks/callback_list.py | training/callbacks/test_callback_list.py
    the last callback decides
        joined |= action => joined = action
training/callbacks/preemption.py | training/callbacks/test_preemption.py
    a deadline ends a run that is not saved
        return Action.SIGNAL | Action.SAVE => return Action.SIGNAL
training/callbacks/profiler.py | training/callbacks/test_profiler.py
    a step of the warm-up is profiled
        train_plan.first_step + PROFILE_WARMUP + 1 => train_plan.first_step + PROFILE_WARMUP
training/checkpoint/base_weights.py | training/checkpoint/test_base_weights.py
    a renamed file is the same
        sha256.update(path.name.encode()) => pass
training/checkpoint/compare.py | training/checkpoint/test_compare.py
    tensors are compared with themselves
        != theirs.view(torch.uint8) => != ours.view(torch.uint8)
training/checkpoint/compare.py | training/checkpoint/test_metrics_comparison.py
    norms have the tolerance of weights
        tolerance.moments if name == "grad_norm" else tolerance.weights => tolerance.weights
training/checkpoint/controller.py | training/test_best_at_end.py
    the average at the end is that of the last step
        load_average(checkpoint) => pass
training/checkpoint/manifest.py | training/checkpoint/test_durability.py
    a shard is not synced
        os.fsync(stream.fileno()) => pass
training/checkpoint/manifest.py | training/checkpoint/test_reader.py
    a wrong checksum passes
        if actual != checksum: => if False:
    a file of another size passes
        or status.st_size != file.bytes: => or False:
training/checkpoint/resume_point.py | training/checkpoint/test_resume_point.py
    the oldest checkpoint is taken
        for candidate in reversed(steps): => for candidate in steps:
    samples before a reset are lost
        replace(starts, data=self.step, samples_before=samples) => replace(starts, data=self.step)
training/checkpoint/retention.py | training/checkpoint/test_retention.py
    a kept checkpoint is deleted
        *periodic[-keep.last :]] => *periodic[-keep.last :][1:]]
    the worst score is the best
        sorted((score.rank, step) => sorted((-score.rank, step)
    scores on other data are compared
        if replace(each[0], value=0.0) == replace(scored[-1][0], value=0.0)] => if True]
    checkpoints at multiples of a step are deleted
        (keep.every and c.step % keep.every == 0) => False
training/checkpoint/retention.py | training/checkpoint/test_durability.py
    a checkpoint has its name before the name is synced
        unfinished(storage, step).rename(final) => unfinished(storage, step).rename(final); return final
training/checkpoint/room.py | training/checkpoint/test_room.py
    room for one moment of two
        2 * count if optim.name == "adamw" else count => count
training/checkpoint/tensor_file.py | training/checkpoint/test_writer.py
    every rank writes all of a replica
        first, last = size * replica // replicas, size * (replica + 1) // replicas => first, last = 0, size
training/checkpoint/tensor_file.py | training/checkpoint/test_weights.py
    tensors are not aligned
        text += b" " * (-len(text) % _LENGTH_BYTES) => pass
training/data/feature_cache.py | training/data/test_feature_cache.py
    features are computed with dropout
        module.eval() => module.train(True)
    ranks compute the same batch of features
        min(turn + world.rank, len(missing) - 1) => min(turn, len(missing) - 1)
training/data/fingerprint.py | training/data/test_fingerprint.py
    tensors of another form have one digest
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode()) => pass
    weights may be swapped between parameters
        (start + first + key) => (start + first)
    a digest is linear in the place of an element
        factors.bitwise_xor_(factors >> 31).mul_(_MIX) => pass
training/data/loader.py | training/data/test_loader.py
    the order counts from the start of the run
        order_step = step - plan.data_start => order_step = step
    a sample of an evaluation counts twice
        number < self._counted => True
    batches that were taken ahead are dropped
        taken, self._ahead = self._ahead or self._arrived(), [] => taken, self._ahead = self._arrived(), []
    a smaller micro-batch is hardly smaller
        range(self.micro_batch // 2, 0, -1) => range(self.micro_batch - 1, 0, -1)
training/data/order.py | training/data/test_order.py
    order is off by one sample
        first = offset * self.global_batch => first = offset * self.global_batch + 1
    every rank takes the slice of rank 0
        reshape(world_size, -1, micro_batch)[rank] => reshape(world_size, -1, micro_batch)[0]
    every epoch has the same order
        derive(self.seed, "order", epoch) => derive(self.seed, "order")
    the permutation of another epoch is used
        if (epoch, block) != self._block: => if block != self._block[1]:
    an index may be the length of the data
        np.flatnonzero(permuted >= length) => np.flatnonzero(permuted > length)
training/data/samples.py | training/data/test_samples.py
    a sample has the same randomness in each epoch
        key = derive(self.seed, "sample", epoch) => key = derive(self.seed, "sample")
    an evaluation takes the first sample of each part
        derive(self.seed, "evaluated", part) % (end - begin) => 0
    the share of replayed samples is of the new ones
        round(new * share / (1 - share)) => round(new * share)
    a replayed sample has the number that chose it
        sample(chosen - before, _Later(draws)) => sample(chosen - before, draws)
training/data/workers.py | training/data/test_workers.py
    a worker keeps the tensors that it does not use
        tensor.untyped_storage().resize_(0) => pass
    the watchdog waits as long as the collective
        timeout_s - min(_MARGIN_S, timeout_s / 4) => timeout_s
training/evaluation/early_stopping.py | training/evaluation/test_early_stopping.py
    best is worst
        than - by if direction == "min" => than - by if direction == "max"
    patience counts what is not due
        elif is_due: => else:
    what is not due ends a wait
        if is_due and _is_better( => if _is_better(
training/evaluation/evaluate.py | training/evaluation/test_evaluate.py
    a batch that fills up counts
        added = values if counts else torch.zeros_like(values) => added = values
    metrics of one rank
        interruption.world.sum(total).cpu() => total.cpu()
training/evaluation/evaluator.py | training/evaluation/test_evaluator.py
    a fork keeps a best that it does not have
        {} if keeps_best else {"best": None, "best_values": ()} => {}
    plateau drops where a metric improves
        1 if self._goal.direction == "max" else -1 => 1
training/evaluation/held_out.py | training/evaluation/test_evaluate.py
    a mean of parts is not weighted
        sum(n * value for n, value in known) => sum(value * count / len(known) for _, value in known)
training/logging/metrics.py | training/logging/test_metrics.py
    the line of the step of a resume is removed
        stays = at <= step => stays = at < step
training/optim/ema.py | training/optim/test_ema.py
    the average moves by its decay
        self._weights, 1 - decay) => self._weights, decay)
training/optim/groups.py | training/optim/test_groups.py
    the first layer has the largest learning rate
        decay ** (count - number) => decay ** (number + 1)
training/optim/low_bit.py | training/optim/test_low_bit.py
    bf16 states are truncated
        noise.add_(bits).bitwise_and_(~_LOW) => bits.bitwise_and(~_LOW)
    second moments are stored with a sign
        kind == MOMENTS[0], held.device => True, held.device
training/optim/muon.py | training/optim/test_muon.py
    sign of the update
        scale = -group["lr"] => scale = group["lr"]
    momentum without Nesterov's step
        gradients[n].lerp(averages[n], momentum) => averages[n]
    a rank keeps the steps of its matrices
        dist.broadcast(part, rank, self.group) => pass
training/optim/nonfinite.py | training/optim/test_nonfinite.py
    an infinite gradient norm passes
        return math.isfinite(loss) and 0 <= norm < math.inf => return math.isfinite(loss)
    skips that are not in a row add up
        self._in_a_row = self._in_a_row if update.skipped else 0 => pass
    a gradient that is not finite is applied
        parameter.grad = None => pass
training/optim/optimizer.py | training/optim/test_optimizer.py
    vectors decay
        optim.weight_decay if decays else 0.0 => optim.weight_decay
    Muon takes embeddings
        if not isinstance(m, torch.nn.Embedding)] => if True]
training/optim/schedule.py | training/optim/test_schedule.py
    warm-up is late by one step
        return (step + 1) / (warmup + 1) => return step / (warmup + 1)
    a schedule that was reset counts from the start of the run
        step -= self._start => pass
    plateau drops an evaluation late
        if now["waited"] == self._patience: => if now["waited"] > self._patience:
training/optim/updater.py | training/optim/test_updater.py
    ranks drop out the same units
        step, engine.world.rank, engine.world.device => step, 0, engine.world.device
    a schedule that was reset goes on
        if "schedule" not in resume_point.reset: => if True:
    an experience begins the progress of a task again
        epochs if self._plan.experience else self._plan.epoch(step) => self._plan.epoch(step)
training/optim/updater.py | training/optim/test_groups.py
    a part has the learning rate of all
        lr * group.get(LR_FACTOR, 1.0) => lr
training/optim/updater.py | training/optim/test_ema.py
    a skipped step moves the average
        if self.average is not None and not update.skipped: => if self.average is not None:
training/resources/cgroup.py | training/resources/test_cgroup.py
    pages of files count as used
        max(0, used - dropped) => used
    the widest limit counts
        return min(shares, default=None) => return max(shares, default=None)
training/resources/limits.py | training/resources/test_limits.py
    warnings of a calm machine stay
        self._warnings, self._calm = 0, self._calm + 1 => self._calm = self._calm + 1
    a step that helps nothing is taken
        helps.intersection(over): => helps:
training/resources/memory.py | training/resources/test_memory.py
    peaks of one rank
        world.maximum(counts).tolist() => counts.tolist()
    steps are counted as micro-batches
        self.since += self._accumulation => self.since += 1
training/resources/monitor.py | training/resources/test_monitor.py
    the highest use is the newest
        max(value, self.highest.get(name, 0)) => value
training/resources/nvml.py | training/resources/test_nvml.py
    the memory of another process is ours
        if process.pid == os.getpid()), None) => if True), None)
training/resources/throttle.py | training/resources/test_oom.py
    gradients of a failed pass stay
        self._engine.discard() => pass
    a failed pass counts in buffers
        setattr(owner, name, tensor.copy_(copy)) => pass
    micro-batches are halved without end
        or self._halvings == MAX_HALVINGS: => or False:
training/trackers/follow.py | training/trackers/test_follow.py
    the last lines are not sent
        while lines or not is_over: => while not is_over:
    a tracker gets steps twice
        if step > tracker.last_step: => if True:
    a checkpoint is uploaded twice
        elif kind == "saved" and step > self._newest_saved: => elif kind == "saved":
engines/ddp.py | engines/test_ddp.py
    gradients of the first step are not exchanged
        dist.all_reduce(buffer) => pass
    gradients of the first step are sums
        torch.mul(parameter.grad, 1 / self._world.size, out=mean) => torch.mul(parameter.grad, 1.0, out=mean)
    the first step sums in another order
        return parameters[::-1], are_sparse[::-1] => return parameters, are_sparse
engines/deferred_init.py | engines/test_deferred_init.py
    ranks draw on from other states
        torch.set_rng_state(state) => pass
    ranks have other buffers
        for buffer in (buffer for buffer in model.buffers() if buffer.numel()): => for buffer in ():
    a rank gets the first rows of each weight
        values[piece.start :][: piece.data.numel()] => values[: piece.data.numel()]
engines/device.py | engines/test_device.py
    all processes take the first GPU
        else torch.device(wanted, local_rank) => else torch.device(wanted, 0)
    threads that were asked for are not used
        torch.set_num_threads(count or share) => torch.set_num_threads(share)
engines/frozen_weights.py | engines/test_frozen_weights.py::test_fp32_values_are_exact_and_are_loaded
    their fp32 values are lost
        self._values[piece.name].copy_(whole[piece.start :][: piece.data.numel()]) => pass
    the model keeps what it had before a load
        piece.data.copy_(self._values[piece.name]) => pass
engines/fsdp.py | engines/test_fsdp.py
    gradients are reduced in bf16
        reduce_dtype=torch.float32 if dtype else None => reduce_dtype=dtype
engines/fsdp.py | engines/test_preparation.py
    the rows of a rank begin elsewhere
        rows = ceil(tensor.shape[0] / self._shards) => rows = tensor.shape[0] // self._shards
engines/fsdp.py | engines/test_parity.py::test_few_parameters_train_as_under_local
    a tied weight is sharded on one side
        len(owners[id(p)]) == 1 for p in block => True for p in block
engines/local.py | engines/test_accumulation.py
    gradients are not averaged
        average(self.module.parameters(), self._world) => pass
engines/optimizer_step.py | engines/test_optimizer_step.py
    clipping sees one shard only
        norm = (world.sum(norm.square()) / replicas).sqrt() => norm = norm.clone()
    gradients are sums over ranks
        flat /= world.size => pass
    small gradients are scaled up
        (clip_norm / (norm + 1e-6)).clamp(max=1.0) => (clip_norm / (norm + 1e-6))
    the norm lacks the weights that are not sharded
        torch.hypot(norm, get_total_norm(whole).to(norm)) if whole else norm => norm
engines/optimizer_step.py | engines/test_state.py::test_statistics_are_those_of_rank_zero
    ranks have statistics of their own
        broadcast_buffers(self._buffers, self.world) => pass
engines/overlapped_update.py | engines/test_overlapped_update.py
    gradients are not clipped
        scale(gradients_of(parameters), factor) => pass
    gradients of an update stay
        parameter.grad = None => pass
engines/pinned.py | engines/test_pinned.py
    pages stay pinned after they are unmapped
        torch.cuda.cudart().cudaHostUnregister(self._address) => pass
engines/precision.py | engines/test_precision.py
    a loss scale falls without end
        max(self.value * self.BACKOFF, self.MINIMUM) => self.value * self.BACKOFF
    a loaded loss scale counts anew
        self.good_updates = int(state["good_updates"]) => self.good_updates = 0
    losses are computed in 16 bits
        value.float() if isinstance(value, Tensor) and value.dtype == dtype else value => value
engines/preparation.py | engines/test_preparation.py
    ranks start from weights of their own
        if world.size > 1: => if False:
    a recomputation counts in buffers
        buffer.copy_(value) => pass
    other blocks recompute their activations
        blocks[every - 1 :: every] => blocks[::every]
engines/rendezvous.py | engines/test_rendezvous.py
    ranks with other settings may train
        digest = hashlib.sha256(text.encode()) => digest = hashlib.sha256(b"")
    two ranks may use one GPU
        users[host, device or rank] => users[host, rank]
engines/rendezvous.py | engines/test_world.py
    a restarted rank finds the address of a dead one
        f"{token}/attempt-{attempt}" => f"{token}"
engines/replicated.py | engines/test_state.py::test_parameters_may_differ_in_their_counts
    counts of steps are not loaded
        load_steps(self._local_optimizer(), self._named, steps) => pass
engines/replicated.py | engines/test_parity.py::test_adafactor_has_the_state_of_one_process
    every rank of oss writes slots as a replica
        slot_replica=(0, 1) if self._sharding else replica => slot_replica=replica
engines/state.py | engines/test_state.py::test_a_state_with_a_hole_or_an_overlap_is_an_error
    a state may have elements twice
        is_whole = count == size or => is_whole = count >= size or
engines/used_parameters.py | engines/test_used_parameters.py::test_equal_steps_send_nothing
    ranks ask each other at every step
        if self._expected[position : position + 1] != [segment]: => if True:
engines/used_parameters.py | engines/test_used_parameters.py::test_both_ranks_name_what_only_one_uses
    an error names the rank of the other
        zip((self._world.rank, rank), names, strict=True) => zip((rank, self._world.rank), names, strict=True)
engines/used_parameters.py | engines/test_used_parameters.py::test_a_module_may_be_called_more_often_by_a_rank
    a module that a pass uses twice counts twice
        if ends or index not in self._in_pass: => if True:
engines/world.py | engines/test_world.py
    the flags of a rank are its own
        dist.all_reduce(bits, dist.ReduceOp.MAX, group=self._hosts) => pass
    a maximum is a sum
        self._reduce(value, dist.ReduceOp.MAX) => self._reduce(value, dist.ReduceOp.SUM)
    a sum changes its addend
        total = value.detach().clone() => total = value.detach()
engines/zero/config.py | engines/zero/test_config.py
    true is one
        isinstance(a, bool) == isinstance(b, bool) and bool(a == b) => bool(a == b)
    merging changes what engines are shipped with
        json.loads(json.dumps(shipped)) => dict(shipped)
engines/zero/engine.py | training/optim/test_ema.py
    no refresh after the average is swapped in
        self._state.refresh() => pass
engines/zero/engine.py | engines/zero/test_gradients.py
    gradients are added in 16 bits
        "data_types": {"grad_accum_dtype": "fp32"} => "data_types": {}
    gradients are averaged in 16 bits
        "communication_data_type": "fp32" => "communication_data_type": "bf16"
engines/zero/engine.py | engines/zero/test_engine.py
    working weights stay as they were after a load
        self._state.refresh() => pass
engines/zero/gradients.py | engines/zero/test_gradients.py
    zero3 clears a copy of the gradients that are stale
        yield parameter, flats[parameter.ds_id] => yield parameter, flats[parameter.ds_id].clone()
    zero1 and zero2 keep discarded gradients
        gathered.update(dict.fromkeys(gathered)) => pass
    offloading engines clear a copy of the gradients that are stale
        yield parameter, _offloaded(zero, parameter) => yield parameter, _offloaded(zero, parameter).clone()
    a pass after a discarded one is added to it
        zero.micro_step_id = 0 if _is_stage3(zero) else -1 => pass
    gradients of an earlier update stay in a buffer
        gathered.zero_() => pass
    gradients of the last pass only are offloaded
        _fetch(self._zero, parameter, gathered) => pass
engines/zero/library.py | engines/zero/test_library.py
    an architecture is named twice
        dict.fromkeys(entries) => entries
engines/zero/state.py | engines/zero/test_engine.py
    fp32 weights are rounded at the start
        interval.of(interval.flat).copy_(original) => pass
    small weights of zero3 stay as they were
        self._zero.parameter_offload.partition_all_parameters() => pass
models/common/split.py | models/common/test_split.py
    test patients are trained on
        used[:held] + used[2 * held :] => used[:held] + used[held:]
models/doc_translation/metric.py | models/doc_translation/test_metric.py
    BLEU ignores the language
        Bleu(_TOKENIZERS.get( => Bleu({}.get(
models/event_seg/readers/prophesee_format.py | models/event_seg/test_prophesee_format.py
    repeated TIME_HIGH
        keeps = is_high[sets] & ( => keeps = False & is_high[sets] & (
models/language/rows.py | models/language/test_rows.py
    padding counts as units
        "units": int((labels != IGNORE).sum()) => "units": labels.numel()
    labels are the inputs themselves
        labels = tokens[1:].copy() => labels = tokens[:-1].copy()
launcher/base/redaction.py | launcher/base/test_redaction.py
    a secret stays in a text
        text.replace(value, f"[{name}]") => text.replace(value, value)
launcher/base/signals.py | launcher/base/test_signals.py
    a signal ends as a failure
        else exit_codes.RUN_AGAIN => else exit_codes.FAILURE
launcher/compare/promises.py | launcher/compare/test_promises.py
    a broken promise is kept
        measured <= highest => measured >= highest
launcher/config/batching.py | launcher/config/test_batching.py
    global batch is no product
        parts[0], parts[0] * parts[1] => parts[0], parts[0] + parts[1]
launcher/config/resolve.py | launcher/config/test_resolve.py
    a file overrides the command line
        stack(family, values, users) => stack(family, values, users[::-1])
    an unknown key is accepted
        invalid.append(_input_errors().unknown_key(family, layer, key)) => pass
launcher/plan/placement.py | launcher/plan/test_placement.py
    a plan without optimizer state
        held[:, Kind.OPTIMIZER] = weights, optimizer => held[:, Kind.OPTIMIZER] = weights, 0
launcher/saved_runs/verify.py | launcher/test_nothing_compared.py
    nothing compared counts as identical
        if state.tensors == 0: => if state.tensors < 0:
slurm/environment.py | slurm/test_environment.py
    a generation follows itself
        self.job == other.job and self > other => self.job == other.job and self >= other
slurm/script.py | slurm/test_script.py
    arguments of a job are split at spaces
        *map(shlex.quote, arguments) => *arguments
"""


Mutation = namedtuple("Mutation", "file test why old new")


def _parsed(table: str) -> Iterator[Mutation]:
    for line in table.strip().splitlines():
        text = line.lstrip()
        depth = len(line) - len(text)
        if depth == 0:
            file, test = text.split(" | ")
        elif depth == 4:
            why = text
        else:
            yield Mutation(file, test, why, *text.split(" => "))


MUTATIONS = list(_parsed(_TABLE))


def catching_test(mutation: Mutation, copy: Path) -> str | None:
    """The test that fails with the mutation in the folder `copy`; None: all pass, or take too long."""
    file = copy / mutation.file
    text = file.read_text()
    file.write_text(text.replace(mutation.old, mutation.new))
    command = [sys.executable, *PYTEST, f"tests/{mutation.test}"]
    given = {"cwd": copy, "env": {**os.environ, "PYTHONPATH": str(copy)}, "timeout": TIMEOUT_S}
    try:
        done = subprocess.run(command, capture_output=True, text=True, **given)  # type: ignore[call-overload]
    except subprocess.TimeoutExpired:
        return None
    finally:
        file.write_text(text)
    failed = re.search(r"^(?:FAILED|ERROR) (.*?)(?: - .*)?$", done.stdout, re.MULTILINE)
    return failed[1] if failed else f"exit code {done.returncode}" if done.returncode else None


def main() -> int:
    """Print a row for each mutation; exit code 1 if one was missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", type=int, nargs="+", default=range(1, len(MUTATIONS) + 1), metavar="N")
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        names = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
        for name in (name for name in names if (ROOT / name).is_file()):
            (copy := Path(folder, name)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy)
        for number in parser.parse_args().only:
            mutation = MUTATIONS[number - 1]
            began = time.monotonic()
            test = catching_test(mutation, Path(folder))
            seconds = time.monotonic() - began
            missed += test is None
            result = f"caught  {test}" if test else "MISSED"
            print(f"{number:3d}  {mutation.file}: {mutation.why}")
            print(f"     {seconds:3.0f} s  {result}", flush=True)
    print(f"{missed} missed")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
