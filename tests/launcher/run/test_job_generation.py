"""The outcome file for the job script: complete, and of the rank that decides."""

import pytest

from gearshift.launcher.run.job_generation import JobGeneration, outcome_path, publish_outcome
from gearshift.slurm.environment import Generation

FIRST = Generation("12", 0)


@pytest.fixture
def run(tmp_path):
    (tmp_path / "slurm").mkdir()
    return tmp_path


def outcome_lines(run, generation=FIRST):
    path = outcome_path(run, generation)
    return path.read_text().splitlines() if path.exists() else None


@pytest.mark.parametrize(
    "code, line", [(0, "done 0"), (1, "failed 1"), (2, "invalid 2"), (130, "again 130")]
)
def test_each_exit_code_has_its_outcome(run, code, line):
    assert publish_outcome(run, FIRST, code, "for people\nto read")
    assert outcome_lines(run) == [line, "for people", "to read"]
    assert [path.name for path in (run / "slurm").iterdir()] == ["outcome.12.0"]


def test_the_first_outcome_counts_except_after_completion(run):
    assert publish_outcome(run, FIRST, 1, "a rank broke")
    assert not publish_outcome(run, FIRST, 75)
    assert outcome_lines(run) == ["failed 1", "a rank broke"]
    assert publish_outcome(run, FIRST, 0)
    assert outcome_lines(run) == ["done 0"]


@pytest.mark.parametrize(
    ("kind", "code", "ranks"),
    [
        *((kind, 1, []) for kind in ("peer lost", "killed", "fenced")),  # the end of another rank
        *(("ended", 0, [0]), ("ended", 75, [0]), ("stopped", 75, [0])),
        *((kind, 1, [0, 1]) for kind in ("failed", "out of memory")),
    ],
)
@pytest.mark.parametrize("rank", [0, 1])
def test_rank_0_publishes_an_agreed_end_and_a_rank_that_failed_its_own(
    run, kind, code, ranks, rank
):
    JobGeneration(FIRST, run, rank).end(kind, code, "")
    assert (outcome_lines(run) is not None) == (rank in ranks)
