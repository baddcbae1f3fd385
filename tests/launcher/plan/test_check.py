"""The check of a run by its plan: when it is refused, with what advice, and what is predicted."""

import os
import re
import signal
from contextlib import nullcontext
from dataclasses import replace

import psutil
import pytest

from engines.environment import RankInfo
from engines.world import ProcessWorld
from launcher.base import environment
from launcher.base.diagnostics import SettingsError
from launcher.config import machine
from launcher.plan import background, check, compiled
from launcher.plan.check import Checked, PlanCheck, changed
from launcher.plan.plan import MARGIN
from launcher.plan.target import Target, is_tight
from models.common import cache_folder
from tests.launcher.given import LAPTOP, resolved

pytestmark = pytest.mark.skipif(not background.is_possible(), reason="the check forks, on Linux")
GIB = 2**30
LARGE = ("train.global_batch=512", "train.micro_batch=512")
"""Language tiny needs about 1 GiB for activations with it."""


@pytest.fixture(autouse=True)
def own_process(monkeypatch, tmp_path):
    monkeypatch.setenv(cache_folder.VARIABLE, str(tmp_path))
    monkeypatch.setattr(environment.Process, "is_own", True)
    for name in ("WAIT_S", "TIGHT_WAIT_S"):  # however busy the machine is
        monkeypatch.setattr(check, name, 300.0)


@pytest.fixture
def small_machine(monkeypatch):
    """One whose memory the activations of LARGE exceed, whatever this process holds."""
    own = psutil.Process().memory_info().rss
    ram = round((own + GIB // 2) / (1 - MARGIN))
    monkeypatch.setattr(machine, "detect_machine", lambda: replace(LAPTOP, ram_bytes=ram))
    return own


@pytest.fixture
def world():
    return ProcessWorld(RankInfo(), None, 0.0)


@pytest.fixture
def started():
    """Begins checks, and closes them."""
    begun = []

    def start(*sets, refuses=True, plans=True, parameters=None):
        begun.append(PlanCheck(Checked(resolved(*sets), parameters, refuses), plans=plans))
        return begun[-1]

    yield start
    for one in begun:
        one.close()


def test_a_run_that_does_not_fit_is_refused_with_settings_that_do(small_machine, started, world):
    with pytest.raises(SettingsError) as error:
        started(*LARGE).before_training(world)
    [found] = error.value.diagnostics
    needed = re.match(r"this run needs more memory than there is: (\d+\.\d) GiB of", found.message)
    assert 1 <= float(needed[1]) - small_machine / GIB < 2
    assert found.message.endswith("in main memory (1 process), of which 3% stay free")
    assert "python -m launcher plan; to start anyway: --force" in found.allowed
    first = found.fix.partition("  or  ")[0]
    added, _, typed = first.partition(" (")[0].partition(" instead of ")
    assert typed == f"--set {LARGE[0]} --set {LARGE[1]}"
    words = added.split()
    assert words[::2] == ["--set"] * 2
    fitting = started(*words[1::2])
    fitting.before_training(world)
    assert fitting.predicted_memory_bytes()["host"] > 0


@pytest.mark.parametrize(("used", "is_refused"), [(0.955, False), (1.0, True)])
def test_what_plan_leaves_free_is_not_refused(used, is_refused, started, world, monkeypatch):
    first = started()
    first.before_training(world)
    ram = round(first.predicted_memory_bytes()["host"] / used)
    monkeypatch.setattr(machine, "detect_machine", lambda: replace(LAPTOP, ram_bytes=ram))
    with pytest.raises(SettingsError) if is_refused else nullcontext():
        started().before_training(world)


@pytest.mark.slow
def test_the_state_of_a_large_model_makes_it_wait_before_it_is_built(small_machine, started, world):
    found = started(*LARGE, parameters=GIB)
    with pytest.raises(SettingsError):
        found.before_model(world)
    started(*LARGE, parameters=1000).before_model(world)


def test_with_force_there_is_one_warning(small_machine, started, world, capfd):
    found = started(*LARGE, refuses=False)
    found.before_training(world)
    found.before_training(world)
    assert capfd.readouterr().err.count("warning: this run needs more memory than there is") == 1


def test_a_run_that_fits_says_nothing_and_has_a_prediction(started, world, capfd):
    found = started()
    found.before_model(world)
    found.before_training(world)
    assert capfd.readouterr() == ("", "")
    assert found.predicted_memory_bytes()["device"] is None


def test_a_later_start_takes_the_plan_of_an_earlier_one(started, world, monkeypatch):
    first = started()
    first.before_training(world)
    monkeypatch.setattr(PlanCheck, "_fork", lambda self: pytest.fail("plans again"))
    later = started()
    later.before_training(world)
    assert later.predicted_memory_bytes() == first.predicted_memory_bytes()
    with pytest.raises(pytest.fail.Exception, match="plans again"):
        started("optim.lr=0.5")


def test_a_plan_that_does_not_fit_is_not_kept(small_machine, started, world, tmp_path):
    with pytest.raises(SettingsError):
        started(*LARGE).before_training(world)
    assert list(tmp_path.rglob("*.json")) == []


@pytest.mark.parametrize("tight", [False, True])
def test_a_plan_beside_the_training_has_little_time(tight, started, world, monkeypatch):
    monkeypatch.setattr(background, "limit_cpu", lambda seconds: os._exit(0))
    monkeypatch.setattr(check, "is_tight", lambda *_: tight)
    found = started(parameters=1000)
    found.before_training(world)
    assert (found.predicted_memory_bytes() is not None) == tight


def test_other_ranks_have_no_plan(small_machine, started, world):
    found = started(*LARGE, plans=False)
    found.before_model(world)
    found.before_training(world)
    assert found.predicted_memory_bytes() is None


def test_a_plan_that_is_too_high_refuses_nothing(small_machine, started, world, monkeypatch):
    def fail():
        raise RuntimeError("another version")

    monkeypatch.setattr(compiled, "without_kernels", fail)
    found = started(*LARGE, "compile=on")
    found.before_training(world)
    assert found.predicted_memory_bytes() is None


def test_a_process_of_others_is_not_forked(small_machine, started, world, monkeypatch):
    monkeypatch.setattr(environment.Process, "is_own", False)
    started(*LARGE).before_training(world)


def test_a_run_goes_on_without_its_plan(small_machine, started, world, monkeypatch):
    def killed(self, send):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(PlanCheck, "_plan", killed)
    found = started(*LARGE)
    found.before_model(world)
    found.before_training(world)
    assert found.predicted_memory_bytes() is None


def test_which_state_is_tight():
    target = Target(1, 4, "cuda", 10 * GIB, 64 * GIB)
    assert is_tight(GIB // 16, "local", target)
    assert not is_tight(GIB // 17, "local", target)
    assert not is_tight(GIB // 16, "fsdp", target)
    assert is_tight(GIB // 4, "zero3-offload", target)
    cpu = Target(1, 4, "cpu", None, 40 * GIB)
    assert is_tight(GIB // 16, "ddp", cpu)
    assert not is_tight(GIB, "ddp", Target(1, 1, "cuda", None, None))


def test_changes_of_settings():
    run = resolved("train.global_batch=32", "train.micro_batch=16", "loader.workers=2")
    sets = ["train.micro_batch=4", "train.global_batch=32", "loader.workers=0"]
    memory = ["memory.activation_checkpointing=full", "memory.return_freed=true", "compile=off"]
    found = changed(run, [*sets, *memory])
    assert str(found.batching) == "32 = 4 × 8 × 1 process"
    assert found.settings.loader.workers == 0
    assert found.settings.memory.activation_checkpointing == "full"
    assert found.settings.memory.return_freed and found.settings.compile == "off"
    assert str(changed(run, sets[2:]).batching) == str(run.batching)
    with pytest.raises(SettingsError, match=r"engine\.name cannot change here"):
        changed(run, ["engine.name=fsdp"])
