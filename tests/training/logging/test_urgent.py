import pytest

from training.logging import console_text


@pytest.mark.parametrize(
    ("kind", "facts", "text"),
    [
        ("warning", {"text": "careful"}, "careful"),
        (
            "signal",
            {"names": ["SIGTERM"], "saves": True},
            "SIGTERM: saving and ending after this step",
        ),
        (
            "signal",
            {"names": ["SIGTERM"], "saves": False},
            "SIGTERM: ending, without saving, after this step",
        ),
        (
            "signal",
            {"names": ["SIGINT"], "saves": True},
            "SIGINT: saving and ending after this step; Ctrl-C once more ends at once",
        ),
        (
            "limit_exceeded_at_start",
            {"over": ["swap"], "swap": 60.0},
            "swap 60% over its limit before the run began; only limits.critical counts",
        ),
        (
            "throttled",
            {"critical": ["ram"], "over": ["ram"], "ram": 97.2},
            "ram 97% over its limit: giving back what can be given back",
        ),
        (
            "pressure",
            {"over": ["gpu", "swap"], "gpu": 96.0, "swap": 81.0},
            "gpu 96%, swap 81% still over its limit: saving and ending; see limits.*",
        ),
        (
            "limit_given_up",
            {"over": ["cpu"], "cpu": 99.0},
            "cpu 99% over its limit, and nothing a run can do helps: not watched any more",
        ),
        (
            "disk_filling",
            {"over": ["disk"], "disk": 96.2},
            "disk 96% over its limit: free some, or saving will fail",
        ),
        ("fewer_workers", {"from": 4, "to": 2}, "loader workers 4 → 2, to take less"),
        (
            "smaller_micro_batch",
            {"from": 16, "to": 8, "accumulation": 4},
            "micro-batch 16 → 8 × 4 accumulated: the global batch stays",
        ),
        (
            "out_of_memory",
            {"at": 7, "text": "CUDA out of memory."},
            "memory ran out in step 7: CUDA out of memory.",
        ),
        (
            "straggler",
            {"rank": 5, "host": "n2", "what": "data", "seconds": 0.31, "median_seconds": 0.002},
            "rank 5 on n2 waits for its data 310 ms a step, the others 2 ms",
        ),
        (
            "straggler",
            {"rank": 5, "host": "n2", "what": "step", "seconds": 2.31, "median_seconds": 1.2},
            "rank 5 on n2 computes 2.3s a step, the others 1.2s",
        ),
        (
            "straggler_gone",
            {"rank": 5, "host": "n2", "what": "step", "at": 40},
            "rank 5 on n2 keeps up again",
        ),
        ("evaluated", {"step": 3}, None),
    ],
)
def test_events_that_cannot_wait_are_told(kind: str, facts: dict[str, object], text: str | None):
    assert console_text.render_urgent(kind, facts) == text
