"""sbatch: options, environment, rejected jobs, and the site file, read by a real bash."""

import os

import pytest

from gearshift.slurm import sbatch
from gearshift.slurm.sbatch import SlurmError
from tests.slurm.programs import programs_in_path


@pytest.fixture
def programs(tmp_path, monkeypatch):
    return programs_in_path(tmp_path / "bin", monkeypatch)


def test_variables_of_a_job_do_not_reach_a_job_submitted_from_it():
    kept = {"SLURM_CONF": "/etc/slurm.conf", "GEARSHIFT_CACHE": "/data", "HOME": "/home/me"}
    found = sbatch.environment(
        {
            **{"SLURM_NTASKS": "77", "SBATCH_PARTITION": "short", "SRUN_CPUS_PER_TASK": "4"},
            **{"TORCHELASTIC_RESTART_COUNT": "1", "GEARSHIFT_JOB": "12", "RANK": "0"},
            **kept,
        }
    )
    assert found == kept


def test_sbatch_variables_become_options():
    given = {"SBATCH_ACCOUNT": "me", "SBATCH_TIMELIMIT": "60", "SBATCH_MEM_PER_NODE": "64G"}
    given |= {"SBATCH_EXCLUSIVE": "", "SBATCH_GPUS_PER_NODE": "4", "SBATCH_NO_REQUEUE": "1"}
    given |= {"SBATCH_WHATEVER": "x", "SBATCH_QOS": "", "HOME": "/home/me"}
    expected = {"account": "me", "time": "60", "mem": "64G", "gpus-per-node": "4"}
    assert sbatch.header(given) == {**expected, "exclusive": None, "no-requeue": None}


def test_a_script_is_tested_without_a_file_and_submitted_from_one(programs, tmp_path):
    programs.add("sbatch", (0, "", "sbatch: Job 3 to start\n"), (0, "17;here\n", ""))
    sbatch.test("#!/bin/bash\n", ["--mail-type=END"], {**os.environ, "SLURM_NTASKS": "7"})
    waiting = {**os.environ, "SBATCH_WAIT": "1"}
    assert sbatch.submit(tmp_path / "a b.sbatch", ["--hold"], waiting) == "17"
    test, submit = programs.calls("sbatch")
    assert (test["args"], test["text"]) == (["--test-only", "--mail-type=END"], "#!/bin/bash\n")
    assert submit["args"] == ["--parsable", "--hold", str(tmp_path / "a b.sbatch")]
    assert "SLURM_NTASKS" not in test["environment"]
    assert "SBATCH_WAIT" not in submit["environment"]


def test_a_rejected_job_raises_the_message_of_sbatch(programs, tmp_path, monkeypatch):
    told = {
        "no such partition\nnone": (
            1,
            "",
            "sbatch: error: no such partition\nsbatch: error: none\n",
        ),
        "sbatch failed with exit code 3": (3, "", ""),
        "sbatch printed no job id but 'Submitted'": (0, "Submitted\n", ""),
    }
    programs.add("sbatch", *told.values())
    for message in told:
        with pytest.raises(SlurmError) as caught:
            sbatch.submit(tmp_path / "job.sbatch", [], os.environ)
        assert str(caught.value) == message
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmError, match="cannot run sbatch"):
        sbatch.test("", [], os.environ)


def site_file(folder, text):
    path = folder / "our site.sh"
    path.write_text(text)
    return path


def test_variables_of_the_site_file_are_read_exported_or_not_and_may_keep_a_value_of_the_user(
    tmp_path,
):
    text = 'export SBATCH_ACCOUNT=me\nSBATCH_COMMENT="two\nlines"\necho loaded\n'
    environment = {"PATH": os.environ["PATH"], "MINE": "yes"}
    found = sbatch.read_site_file(site_file(tmp_path, text), environment)
    expected = {"SBATCH_ACCOUNT": "me", "SBATCH_COMMENT": "two\nlines", "MINE": "yes"}
    assert {**found, **expected} == found
    assert "loaded" not in found.values()
    path = site_file(tmp_path, ': "${SBATCH_PARTITION:=gpu}"\n')
    assert sbatch.read_site_file(path, {"SBATCH_PARTITION": "debug"})["SBATCH_PARTITION"] == "debug"
    assert sbatch.read_site_file(path, {})["SBATCH_PARTITION"] == "gpu"


def test_a_failing_or_missing_site_file_is_an_error(tmp_path):
    with pytest.raises(SlurmError, match="no such project"):
        sbatch.read_site_file(
            site_file(tmp_path, "echo no such project >&2; exit 3"), {"PATH": os.environ["PATH"]}
        )
    for path in (tmp_path / "site.sh", site_file(tmp_path, "exit 0")):
        with pytest.raises(SlurmError):
            sbatch.read_site_file(path, {"PATH": os.environ["PATH"]})
