"""Run folders with results, made without training."""

import json

from gearshift.launcher.compare.rows import read
from gearshift.launcher.run_folder import run_folder
from gearshift.training.logging.encoding import encode
from gearshift.training.train_plan import TrainPlan

GOAL = {"metric": "val_loss", "direction": "min"}


def run(
    folder,
    seconds,
    *,
    total=100,
    per_epoch=20,
    window=1,
    evaluations=None,
    stop_after=None,
    eval_every=10,
    aim=None,
    peak=None,
    **result,
):
    """A run with one step for each of `seconds`; `evaluations`: step -> (val_loss, seconds)."""
    folder.mkdir(parents=True, exist_ok=True)
    results = evaluations or {}
    batch = (8, 8, 1, 1, "tokens")
    plan = TrainPlan(total, per_epoch, *batch, eval_every=eval_every, stop_after=stop_after)
    events = [{"kind": "started", "step": 0, "facts": vars(plan)}]
    for step, (loss, took) in results.items():
        facts = {"step": step, "seconds": took, "metrics": {"val_loss": loss}}
        events.append({"kind": "evaluated", "step": step, "facts": facts})
    lines = []
    for last in sorted({1, *range(window, len(seconds) + 1, window), len(seconds)}):
        before = lines[-1]["step"] if lines else 0
        mean = sum(seconds[before:last]) / (last - before)
        line = {"kind": "train", "step": last, "tokens": last * 80, "loss": 5.0 - last}
        lines.append(line | {"step_time_s": mean})
    best = min((loss for loss, _ in results.values()), default=None)
    content = {"status": "completed", "parameters": 1000, "architecture": "abc", "samples": 160}
    content["best"] = None if best is None else {**GOAL, "value": best, "step": 0}
    content["peak_memory_bytes"] = peak or {"device": None, "host": 900, "host_growth": 300}
    content |= result
    for name, found in ((run_folder.METRICS, lines), (run_folder.EVENTS, events)):
        (folder / name).write_text("".join(encode(line) + "\n" for line in found))
    (folder / run_folder.RESULT).write_text(json.dumps(content))
    measured = read(folder, aim)
    assert measured is not None
    return measured
