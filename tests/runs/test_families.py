"""The tiny model of every family trains equally under every engine, and resumes between them."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from tests.engines.parity import joined
from tests.engines.pool import Pool
from tests.engines.test_parity import able_mark, missing_backend
from tests.runs.crossing import differences, drift
from tests.runs.families import TrainingRun, begin, resume_run

pytestmark = pytest.mark.slow
# The order in which gradients are added; four steps of Adam blow that up in the weights.
LOSSES, MOMENTS, METRICS = 1e-4, 1e-3, 1e-2
HALF_LOSSES, HALF_MOMENTS = 1e-2, 0.1


@dataclass
class TrainingRuns:
    """Runs of families under engines on two processes, each trained once."""

    pool: Pool
    folder: Path
    _trained: dict[tuple[str, str], TrainingRun] = field(default_factory=dict)

    def of(self, family, engine):
        key = (family, engine)
        if key not in self._trained:
            run = self.folder / f"{family}-{engine}"
            run.mkdir(exist_ok=True)
            results = self.pool.run(begin, family, engine, run)
            folders, saved, end, metrics = zip(*results, strict=True)
            assert all(repr(found) == repr(metrics[0]) for found in metrics)  # nan is nan
            self._trained[key] = TrainingRun(folders[0], list(saved), list(end), metrics[0])
        return self._trained[key]


@pytest.fixture(scope="module")
def training_runs(worlds, tmp_path_factory):
    return TrainingRuns(worlds[2], tmp_path_factory.mktemp("families"))


def apart(outcomes, others, kind):
    """The largest difference of all tensors of a kind, relative to their largest element.

    Not tensor by tensor: a bias before a normalization has no gradient but rounding.
    """
    ours, theirs = joined(outcomes), joined(others)
    assert ours.keys() == theirs.keys()
    keys = [key for key in theirs if key[0] == kind]
    most = max(np.abs(theirs[key]).max() for key in keys)
    return float(max(np.abs(ours[key] - theirs[key]).max() for key in keys) / most)


def families_under(*pairs):
    return pytest.mark.parametrize(
        ("family", "engine"),
        [pytest.param(family, engine, marks=able_mark(engine)) for family, engine in pairs],
    )


PAIRS = [("event_seg", "zero3"), ("language", "oss"), ("language", "ddp"), ("abr", "fsdp")]
PAIRS += [("doc_translation", "zero2"), ("eeg_text", "zero3")]


@families_under(*PAIRS)
def test_losses_moments_and_metrics_are_those_of_local(training_runs, family, engine):
    plain, found = training_runs.of(family, "local"), training_runs.of(family, engine)
    assert drift(found.end, plain.end) < LOSSES
    assert apart(found.end, plain.end, "exp_avg") < MOMENTS
    assert apart(found.end, plain.end, "exp_avg_sq") < MOMENTS
    assert found.metrics == pytest.approx(plain.metrics, rel=METRICS, abs=METRICS, nan_ok=True)
    assert found.end[0].without_gradient == []


@families_under(("event_seg", "zero3"), ("abr", "fsdp"), ("eeg_text", "local"))
def test_a_checkpoint_resumes_under_another_engine(training_runs, tmp_path, family, engine):
    """Each kind of layout once; test_crossing.py crosses all engines."""
    source = {"local": "zero3", "fsdp": "local", "zero3": "fsdp"}[engine]
    if reason := missing_backend(source):
        pytest.skip(reason)
    before = training_runs.of(family, source)
    results = training_runs.pool.run(resume_run, family, engine, tmp_path, before.folder)
    taken, end = (list(column) for column in zip(*results, strict=True))
    assert differences(before.saved, taken) == []
    assert drift(end, training_runs.of(family, engine).end) < LOSSES
