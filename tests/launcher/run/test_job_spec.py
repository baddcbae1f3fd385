"""A rank gets exactly the resolved settings."""

from pathlib import Path

from launcher.run import job_spec
from launcher.run_folder.resume import ResumeRequest
from tests.launcher.given import resolved


def test_settings_origins_and_numbers_arrive_unchanged(tmp_path):
    expected = resolved("optim.betas=[0.8, 0.9]", "promise={}", mode="fast", nproc="2", lr="1e-5")
    job = job_spec.Job(expected, tmp_path / "run", console=True)
    job_spec.save(job, tmp_path)
    read = job_spec.load(tmp_path)
    assert read.resolved.settings == expected.settings
    assert type(read.resolved.settings) is type(expected.settings)
    assert {key: value.origin for key, value in read.resolved.values.items()} == {
        key: value.origin for key, value in expected.values.items()
    }
    assert [(value.value, list(value.replaced)) for value in read.resolved.values.values()] == [
        (value.value, list(value.replaced)) for value in expected.values.values()
    ]
    assert read.resolved.batching == expected.batching
    assert (read.resolved.nproc, read.resolved.device) == (expected.nproc, expected.device)
    assert (read.folder, read.console) == (tmp_path / "run", True)
    assert (read.resume, read.reports) == (None, tmp_path)


def test_the_resume_request_arrives_unchanged(tmp_path):
    resume = ResumeRequest(Path("runs/x"), 100, ("schedule",), ("engine.name ddp → zero2",), 200)
    job_spec.save(job_spec.Job(resolved(), None, False, resume), tmp_path)
    read = job_spec.load(tmp_path).resume
    assert (read.source, read.step, read.until) == (resume.source, 100, 200)
    assert (tuple(read.reset), tuple(read.changes)) == (resume.reset, resume.changes)
