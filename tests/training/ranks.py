"""Functions that tests run on each of two processes; they return plain numbers."""

from __future__ import annotations

import time

import torch

from engines.base import World
from tests.training.tiny import RecordingCallback, TinyTask, TwoTermsTask, run_tiny
from training.agreement import agree, agree_later
from training.callbacks.base import Action


def tiny_run(
    world: World, task: dict, requests: dict[int, dict[int, Action]], changes: dict
) -> dict:
    """A whole run; `requests` by rank and step."""
    recorder = RecordingCallback(requests.get(world.rank))
    run = run_tiny(world, TinyTask(**task), recorder, **changes)
    return {
        "calls": recorder.calls,
        "outcome": run.outcome,
        "lines": recorder.lines,
        "kinds": recorder.kinds(),
        "evaluations": [(e.step, e.metrics) for e in recorder.evaluations],
        "saved": {step: shelf["facts"] for step, shelf in run.shelf.saved.items()},
        "weights": {name: weight.tolist() for name, weight in run.weights.items()},
    }


def two_terms_run(world: World, changes: dict) -> dict:
    """Losses, parts and weights of a loss of two terms."""
    run = run_tiny(world, TwoTermsTask(), **changes)
    return {
        "losses": [line.loss for line in run.recorder.lines],
        "parts": [line.parts for line in run.recorder.lines],
        "weights": {name: weight.tolist() for name, weight in run.weights.items()},
    }


def agreed(
    world: World, units: list[int], flags: list[int], more: list[list[int]]
) -> tuple[dict[str, int], int, list[int]]:
    """The agreed values of ranks with different units, flags and further numbers."""
    rank = world.rank
    return agree(world, {"": units[rank]}, flags[rank], more[rank])


def waits_for_the_late_rank(world: World, late_s: float) -> tuple[float, float, int]:
    """Seconds until an agreement has started, and is there; rank 1 is late. And the sum."""
    world.barrier()
    time.sleep(late_s * world.rank)
    began = time.perf_counter()
    result = agree_later(world, {"": 1 + world.rank}, 0)
    started_s = time.perf_counter() - began
    units, *_ = result()
    return started_s, time.perf_counter() - began, units[""]


def dropout_masks(world: World, seed: int, step: int) -> list[float]:
    """Random numbers of a rank in a step."""
    from training.seeds import seed_step

    seed_step(seed, step, world.rank, world.device)
    return torch.rand(4).tolist()
