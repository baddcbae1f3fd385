"""What is told of a loader worker that ended."""

from __future__ import annotations

from training.data.source import WorkerDied


def test_a_dead_worker_is_told_with_its_likely_cause():
    assert str(WorkerDied([-9, 3])) == (
        "a loader worker ended by signal 9, with exit code 3; a kill (signal 9) mostly means that "
        "memory ran out: lower loader.workers or loader.prefetch"
    )
