"""A rank gets exactly the resolved settings."""

from pathlib import Path

from launcher.run import job_spec
from launcher.run_folder.run_plan import ExperienceSpec, ResumeRequest, RunPlan
from slurm.environment import Generation
from tests.launcher.given import resolved


def test_settings_origins_and_numbers_arrive_unchanged(tmp_path):
    expected = resolved("optim.betas=[0.8, 0.9]", "promise={}", mode="fast", nproc="2", lr="1e-5")
    job = RunPlan(expected, folder=tmp_path / "run", console=True)
    job_spec.save(job, tmp_path)
    read = job_spec.load(tmp_path)
    assert read.resolved.settings == expected.settings
    assert type(read.resolved.settings) is type(expected.settings)
    values, wanted = (
        [(key, value.value, value.origin, list(value.replaced)) for key, value in each.items()]
        for each in (read.resolved.values, expected.values)
    )
    assert values == wanted
    assert read.resolved.batching == expected.batching
    assert (read.resolved.nproc, read.resolved.device) == (expected.nproc, expected.device)
    assert (read.folder, read.console) == (tmp_path / "run", True)
    assert (read.resume, read.reports) == (None, tmp_path)


def test_resume_request_experience_and_generation_arrive_unchanged(tmp_path):
    resume = ResumeRequest(Path("runs/x"), 100, ["schedule"], ["engine.name ddp → zero2"], 200)
    spec = ExperienceSpec(1, Path("r"), [0, 1], {"lr_scale": 0.3}, 5.0)
    generation = Generation("17_3", 2, 1)
    job = RunPlan(resolved(), resume, experience=spec, generation=generation)
    job_spec.save(job, tmp_path)
    read = job_spec.load(tmp_path)
    assert (read.resume, read.experience, read.generation) == (resume, spec, generation)
