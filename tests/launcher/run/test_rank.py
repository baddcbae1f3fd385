"""A rank gets exactly the plan of the run."""

from dataclasses import replace
from pathlib import Path

from gearshift.launcher.run import rank, supervisor
from gearshift.launcher.run_folder.run_plan import ExperienceSpec, ResumeRequest, RunPlan
from gearshift.slurm.environment import Generation
from tests.launcher.given import resolved


def test_the_plan_arrives_unchanged(tmp_path):
    settings = resolved("optim.betas=[0.8, 0.9]", "promise={}", mode="fast", nproc="2", lr="1e-5")
    plan = RunPlan(
        settings,
        ResumeRequest(Path("runs/x"), 100, ["schedule"], ["engine.name ddp → zero2"], 200),
        experience=ExperienceSpec(Path("r"), [0, 1], {"lr_scale": 0.3}, 5.0),
        generation=Generation("17_3", 2, 1),
        folder=tmp_path / "run",
        console=True,
    )
    supervisor.save_plan(plan, tmp_path)
    read = rank.load_plan(tmp_path)
    assert read.resolved.settings == settings.settings
    assert type(read.resolved.settings) is type(settings.settings)
    values, wanted = (
        [(key, value.value, value.origin, list(value.replaced)) for key, value in each.items()]
        for each in (read.resolved.values, settings.values)
    )
    assert values == wanted
    assert read.resolved.batching == settings.batching
    assert (read.resolved.nproc, read.resolved.device) == (settings.nproc, settings.device)
    assert replace(read, resolved=settings, reports=None) == plan and read.reports == tmp_path
