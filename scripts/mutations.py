"""Mutations that fast tests must catch: small faults at lines that matter, one at a time.

    python -m scripts.mutations [--only N ...]

Changes a copy of the checkout, runs the named tests, and prints which test caught each mutation.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import namedtuple
from pathlib import Path

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 300
PYTEST = ("-m", "pytest", "-qx", "-n", "0", "--tb=no", "-p", "no:cacheprovider")
_TABLE = """
training/optim/ema.py | training/optim/test_ema.py | the average moves by its decay
    self._weights, 1 - decay) => self._weights, decay)
training/optim/muon.py | training/optim/test_muon.py | sign of the update
    scale = -group["lr"] => scale = group["lr"]
training/optim/schedule.py | training/optim/test_schedule.py | warm-up is late by one step
    return (step + 1) / (warmup + 1) => return step / (warmup + 1)
training/optim/nonfinite.py | training/optim/test_nonfinite.py | an infinite gradient norm passes
    return math.isfinite(loss) and 0 <= norm < math.inf => return math.isfinite(loss)
training/accumulate.py | training/test_accumulate.py | losses are not scaled by the world size
    engine.world.size / max(count, 1) => 1 / max(count, 1)
training/accumulate.py | training/test_accumulate.py | gradients are exchanged at the first micro-batch
    last=number == len(micro_batches) => last=number == 1
training/agreement.py | training/test_agreement.py | units of one rank only
    total = world.sum_later(addends) => total = addends.clone
training/data/order.py | training/data/test_order.py | order is off by one sample
    first = offset * self.global_batch => first = offset * self.global_batch + 1
training/data/order.py | training/data/test_order.py | every rank takes the slice of rank 0
    reshape(world_size, -1, micro_batch)[rank] => reshape(world_size, -1, micro_batch)[0]
training/data/order.py | training/data/test_order.py | every epoch has the same order
    derive(self.seed, "order", epoch) => derive(self.seed, "order")
training/run_state.py | training/test_run_state.py | a run resumes one step late
    self.step = train_plan.first_step => self.step = train_plan.first_step + 1
training/interruption.py | edges/test_signals.py | a signal is ignored in an evaluation
    return self._requested() & ENDING => return Action.NOTHING
training/evaluation/early_stopping.py | training/evaluation/test_early_stopping.py | best is worst
    than - by if direction == "min" => than - by if direction == "max"
training/storage.py | training/checkpoint/test_durability.py | renamed before it is on the device
    os.fsync(file.fileno()) => pass
training/storage.py | training/test_storage.py | a file is written in place
    return final.parent / f".{final.name}.new" => return final
training/storage.py | training/test_storage.py | a link is followed where a file is written
    os.open(path, flags | os.O_NOFOLLOW => os.open(path, flags
training/storage.py | training/test_storage.py | a fenced process writes
    self.check() => pass
training/checkpoint/manifest.py | training/checkpoint/test_durability.py | a shard is not synced
    os.fsync(stream.fileno()) => pass
training/checkpoint/manifest.py | training/checkpoint/test_reader.py | a wrong checksum passes
    if actual != checksum: => if False:
training/checkpoint/retention.py | training/checkpoint/test_retention.py | a kept checkpoint is deleted
    *periodic[-keep.last :]] => *periodic[-keep.last :][1:]]
training/checkpoint/compare.py | training/checkpoint/test_compare.py | tensors are compared with themselves
    != theirs.view(torch.uint8) => != ours.view(torch.uint8)
training/trackers/follow.py | training/trackers/test_follow.py | the last lines are not sent
    while lines or not is_over: => while not is_over:
engines/ddp.py | engines/test_ddp.py | gradients of the first step are not exchanged
    dist.all_reduce(buffer) => pass
engines/optimizer_step.py | engines/test_optimizer_step.py | clipping sees one shard only
    norm = (world.sum(norm.square()) / replicas).sqrt() => norm = norm.clone()
engines/rendezvous.py | engines/test_rendezvous.py | ranks with other settings may train
    digest = hashlib.sha256(text.encode()) => digest = hashlib.sha256(b"")
models/common/split.py | models/common/test_split.py | test patients are trained on
    used[:held] + used[2 * held :] => used[:held] + used[held:]
models/language/rows.py | models/language/test_rows.py | padding counts as units
    "units": int((labels != IGNORE).sum()) => "units": labels.numel()
models/language/rows.py | models/language/test_rows.py | labels are the inputs themselves
    labels = tokens[1:].copy() => labels = tokens[:-1].copy()
models/doc_translation/metric.py | models/doc_translation/test_metric.py | BLEU ignores the language
    Bleu(_TOKENIZERS.get( => Bleu({}.get(
models/event_seg/readers/prophesee_format.py | models/event_seg/test_prophesee_format.py | repeated TIME_HIGH
    keeps = is_high[sets] & ( => keeps = False & is_high[sets] & (
launcher/config/resolve.py | launcher/config/test_resolve.py | a file overrides the command line
    stack(family, values, users) => stack(family, values, users[::-1])
launcher/config/resolve.py | launcher/config/test_resolve.py | an unknown key is accepted
    invalid.append(_input_errors().unknown_key(family, layer, key)) => pass
launcher/config/batching.py | launcher/config/test_batching.py | global batch is no product
    parts[0], parts[0] * parts[1] => parts[0], parts[0] + parts[1]
launcher/compare/promises.py | launcher/compare/test_promises.py | a broken promise is kept
    measured <= highest => measured >= highest
launcher/plan/placement.py | launcher/plan/test_placement.py | a plan without optimizer state
    held[:, Kind.OPTIMIZER] = weights, optimizer => held[:, Kind.OPTIMIZER] = weights, 0
launcher/saved_runs/verify.py | launcher/test_nothing_compared.py | nothing compared counts as identical
    if state.tensors == 0: => if state.tensors < 0:
launcher/base/signals.py | launcher/base/test_signals.py | a signal ends as a failure
    else exit_codes.RUN_AGAIN => else exit_codes.FAILURE
launcher/base/redaction.py | launcher/base/test_redaction.py | a secret stays in a text
    text.replace(value, f"[{name}]") => text.replace(value, value)
slurm/environment.py | slurm/test_environment.py | a generation follows itself
    self.job == other.job and self > other => self.job == other.job and self >= other
slurm/script.py | slurm/test_script.py | arguments of a job are split at spaces
    *map(shlex.quote, arguments) => *arguments
"""


Mutation = namedtuple("Mutation", "file test why old new")
_ROWS = zip(*[iter(_TABLE.strip().splitlines())] * 2, strict=True)
MUTATIONS = [Mutation(*where.split(" | "), *change.strip().split(" => ")) for where, change in _ROWS]


def catching_test(mutation: Mutation, copy: Path) -> str | None:
    """The test that fails with the mutation in the folder `copy`; None: all pass."""
    file = copy / mutation.file
    text = file.read_text()
    file.write_text(text.replace(mutation.old, mutation.new))
    command = [sys.executable, *PYTEST, f"tests/{mutation.test}"]
    given = {"cwd": copy, "env": {**os.environ, "PYTHONPATH": str(copy)}, "timeout": TIMEOUT_S}
    try:
        done = subprocess.run(command, capture_output=True, text=True, **given)  # type: ignore[call-overload]
    except subprocess.TimeoutExpired:
        return "timeout"
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
            test = catching_test(mutation, Path(folder))
            missed += test is None
            result = f"caught  {test}" if test else "MISSED"
            print(f"{number:2d}  {mutation.file}: {mutation.why}\n      {result}", flush=True)
    print(f"{missed} missed")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
