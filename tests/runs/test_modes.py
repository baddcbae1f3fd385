"""Every mode of every family trains, and is recorded in result.json."""

import json
import math
from itertools import combinations, cycle, product

import pytest

import gearshift
from gearshift.engines.catalog import ENGINES
from gearshift.launcher.config import presets
from tests.ds_configs.tables import SHIPPED
from tests.launcher.given import LAPTOP, ONE_GPU, SERVER, resolved
from tests.runs.conftest import REQUESTS

pytestmark = pytest.mark.usefixtures("one_thread")

AXES = {
    "family": tuple(SHIPPED),
    "mode": tuple(mode for mode in presets.modes() if mode != "staged"),
    "engine": tuple(ENGINES),
}


def pairs(row):
    """The pairs of values in a row, each value with its axis."""
    return set(combinations(enumerate(row), 2))


def covering(*axes):
    """Rows with a value of each axis, in which all pairs of two axes occur; greedy, always the same."""
    candidates = list(product(*axes))
    left, rows = set().union(*map(pairs, candidates)), []
    while left:
        rows.append(max(candidates, key=lambda row: len(pairs(row) & left)))
        left -= pairs(rows[-1])
    return rows


ROWS = covering(*AXES.values())


STEPS = 3
SHORT = {"train.max_steps": STEPS, "train.preview": False, "log.every": 1, "engine.threads": 1}
SHORT |= {"unread_settings": "error"}
FEW = {
    "doc_translation": {"data.max_new_tokens": 4},
    "abr": {"data.fraction": 0.3},
    "eeg_text": {"data.fraction": 0.3},
    "language": {"data.path": "mine.jsonl"},
}
"""Settings that keep the last evaluation short."""
SIZES = {"event_seg": ("lite", "lite-1M"), "language": ("small", "lite", "124M", "350M", "1.3B")}


def cases():
    """The language model in every mode, and in each another family, which is slow."""
    yield from (("language", mode) for mode in AXES["mode"])
    for family, mode, engine in ROWS:
        if engine == "local" and family != "language":
            yield pytest.param(family, mode, marks=pytest.mark.slow)


def saved(folder):
    """The checkpoints and links of a run."""
    checkpoints = sorted(path.name for path in (folder / "checkpoints").glob("*"))
    return checkpoints, sorted(name for name in ("best", "last") if (folder / name).exists())


@pytest.mark.parametrize(("family", "mode"), cases())
def test_a_mode_trains_and_is_recorded(family, mode, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.jsonl").write_text(REQUESTS)
    choice = {"model": f"{family}:tiny", "mode": mode, "engine": "local", "out": tmp_path / "run"}
    run = gearshift.train(**choice, settings=SHORT | FEW.get(family, {}), console=False)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["status"], result["steps"]) == ("completed", STEPS)
    assert (result["model"], result["mode"]) == (f"{family}:tiny", mode)
    lines = run.metrics("train")
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert all(math.isfinite(line["loss"]) for line in lines)
    checkpoints, links = saved(tmp_path / "run")
    if mode == "benchmark":
        assert (checkpoints, links, run.metrics("eval")) == ([], [], [])
        assert (result["timing"]["steps"], result["timing"]["warmup_steps"]) == (2, 1)
    else:
        assert run.metrics("eval") and "best" in links
        assert result["timing"] is None
    if mode in ("fast", "ultra-fast"):
        assert len(checkpoints) == 1  # the best, which is the last here, and saved once


def test_every_pair_of_family_mode_and_engine_resolves_in_every_size_on_every_machine():
    sizes = {family: cycle(("full", "tiny", *SIZES.get(family, ()))) for family in SHIPPED}
    machines = cycle((LAPTOP, ONE_GPU, SERVER))
    for family, mode, engine in ROWS:
        model, machine = f"{family}:{next(sizes[family])}", next(machines)
        run = resolved(model=model, mode=mode, engine=engine, machine=machine)
        assert (run.settings.mode, run.settings.engine.name) == (mode, engine)
        solved = run.batching
        parts = solved.micro_batch * solved.accumulation * solved.world_size
        assert parts == solved.global_batch, (model, mode, engine)
