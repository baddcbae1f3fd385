"""Facts of a run in the form that callbacks get."""

from gearshift.training.callbacks.base import EvalResult, Outcome, RunInfo, Step, StepMetrics
from gearshift.training.train_plan import TrainPlan


def about(folder, **changes):
    known = {"model": "language:tiny", "mode": "lite", "engine": "ddp", "device": "cpu"}
    known |= {"precision": "fp32", "parameters": 1_234_567, "folder": folder}
    known |= {"trainable_parameters": 1_234_567, "architecture": "0a", "samples": 640}
    known |= {"data": {}, "notes": (), "environment": {}, "evaluated": (64, 64)}
    known |= {"stage": None, "loss_changes": False, "predicted_memory_bytes": None}
    return RunInfo(**known | changes)


def train_plan(**changes):
    known = {"total_steps": 100, "steps_per_epoch": 50, "global_batch": 64, "micro_batch": 16}
    known |= {"accumulation": 2, "world_size": 2, "units": "tokens"}
    return TrainPlan(**known | changes)


def step(number):
    # No callback reads the tensors, which would synchronize the device; so they are None.
    nothing = None
    return Step(number, nothing, {}, 4096, nothing, 1e-3, False, None, 0.0)


def logged(number, **changes):
    known = {"step": number, "epoch": number / 50, "samples": 64 * number, "units": 4096 * number}
    known |= {"loss": 2.5, "parts": {}, "grad_norm": 0.75, "lr": 1e-3}
    known |= {"skipped": 0, "loss_scale": None, "step_time_s": 0.1, "data_time_s": 0.01}
    known |= {"samples_per_s": 640.0, "units_per_s": 40960.0, "mfu": None}
    known |= {"device_memory_bytes": None, "host_memory_bytes": 300 * 2**20}
    known |= dict.fromkeys(("forward_time_s", "backward_time_s", "optimizer_time_s"))
    known |= {"lrs": {}, "labelled": None, "labelled_per_s": None}
    return StepMetrics(**known | changes)


def evaluation(number, is_best=True, split="val"):
    return EvalResult(number, split, {"loss": 2.25}, is_best, 1.5, 0.0, 64, 640)


def outcome(**changes):
    known = {"status": "completed", "reason": "all steps taken", "exit_code": 0}
    known |= {"steps": 100, "epochs": 2.0, "wall_s": 12.5, "samples_per_s": 640.0}
    known["best"] = {"metric": "loss", "value": 2.25, "step": 50}
    known["peak_memory_bytes"] = {"device": None, "host": 300 * 2**20}
    return Outcome(**known | changes)
