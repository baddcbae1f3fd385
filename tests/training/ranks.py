"""Functions that tests run on each of two processes; they return plain numbers."""

from gearshift.training.agreement import agree_later
from tests.training.tiny import RecordingCallback, TinyTask, TwoTermsTask, run_tiny, ticking


def tiny_run(world, task, requests, changes, two_terms=False):
    """A whole run; `requests` by rank and step."""
    recorder = RecordingCallback(requests.get(world.rank))
    task_class = TwoTermsTask if two_terms else TinyTask
    run = run_tiny(world, task_class(**task), recorder, **changes)
    return {
        "calls": recorder.calls,
        "outcome": run.outcome,
        "lines": recorder.lines,
        "kinds": recorder.kinds(),
        "evaluations": [(e.step, e.metrics) for e in recorder.evaluations],
        "saved": {step: shelf["facts"] for step, shelf in run.shelf.saved.items()},
        "weights": {name: weight.tolist() for name, weight in run.weights.items()},
    }


def timed_run(world, changes):
    """As `tiny_run`, by a clock that the work of this rank drives."""
    with ticking():
        return tiny_run(world, {}, {}, changes)


def agreed(world, units, flags):
    """The agreed values of ranks with different units and flags."""
    rank = world.rank
    return agree_later(world, {"": units[rank]}, flags[rank])()
