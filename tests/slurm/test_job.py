"""The shell functions of the job files, with small programs that replace Slurm and record calls."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import until

FOLDER = Path(__file__).parents[2] / "slurm"
RECORD = (
    "JobId=7 JobName=mine Priority=1 Account=physics QOS=(null) JobState=RUNNING "
    "Requeue={requeue} Restarts=0 "
    "TimeLimit=04:00:00 Partition=gpu NumNodes=2 CPUs/Task=8 MinMemoryNode=64G Features=(null) "
    "OverSubscribe=NO TresPerNode=gres:gpu:2 Command=/x/fast.sbatch --model abr"
)
PROGRAMS = {
    "scontrol": """\
case "$1 $2" in
  "show job") cat "$STATE/record" ;;
  "show hostnames") printf 'node1\\nnode2\\n' ;;
  "show node") echo "NodeName=node1 NodeAddr=10.0.0.7 NodeHostName=node1" ;;
  requeue*) kill -TERM "$PPID" ;;
esac
""",
    "sbatch": 'echo "${GEARSHIFT_JOB-} ${GEARSHIFT_GENERATION_BASE-} ${SLURM_JOB_ID-}" '
    '>>"$STATE/calls"; echo 8\n',
    "srun": 'echo "OMP_NUM_THREADS=$OMP_NUM_THREADS" >>"$STATE/calls"; eval "${RANKS:-}"\n',
    "getent": 'shift; for name; do [ "$name" = node1 ] && echo "127.0.1.1 STREAM" || '
    'echo "$name STREAM"; done\n',
    "hostname": "echo ${1:+10.9.9.9} node1\n",
}
PUBLISH = 'echo "%s" > run/slurm/outcome.$GEARSHIFT_JOB.$GEARSHIFT_GENERATION'


class Cluster:
    """Programs of Slurm in a folder, their calls, and the environment of one job."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "bin").mkdir()
        for name, text in PROGRAMS.items():
            program = folder / "bin" / name
            program.write_text(f'#!/bin/bash\necho "{name} $*" >>"$STATE/calls"\n{text}')
            program.chmod(0o755)
        (folder / "record").write_text(RECORD.format(requeue=1))
        (folder / "job.sbatch").write_text(
            f'#SBATCH --nodes=1-2\n. {FOLDER}/job.sh\ngearshift_job "$@"\n'
        )
        self.environ = {"PATH": f"{folder}/bin:{os.environ['PATH']}", "STATE": str(folder)}
        job = {"ID": "7", "NAME": "mine", "NUM_NODES": "2", "NODELIST": "node[1-2]"}
        job["CPUS_PER_NODE"] = "16(x3),8"
        self.environ |= {f"SLURM_JOB_{name}": value for name, value in job.items()}

    def start(self, *args, **environ):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        place = {"cwd": self.folder, "env": {**self.environ, **environ}}
        return subprocess.Popen(["bash", "job.sbatch", *args], **place, **pipes)

    def train(self, ranks, **environ):
        """Exit code and log of a job whose ranks run the shell code `ranks`."""
        job = self.start("--out", "run", RANKS=ranks, **environ)
        log, _ = job.communicate()
        return job.returncode, log

    def run(self, text, **environ):
        """The output of the shell code `text` after sourcing job.sh."""
        place = {"cwd": self.folder, "env": {**self.environ, **environ}, "text": True}
        command = ["bash", "-c", f". {FOLDER}/job.sh; {text}"]
        return subprocess.run(command, capture_output=True, check=True, **place).stdout.strip()

    def calls(self, program):
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.startswith(f"{program} ")]


@pytest.fixture
def cluster(tmp_path):
    return Cluster(tmp_path)


def test_ranks_and_cpus_follow_from_the_allocation(cluster):
    text = 'gearshift_measure 2>/dev/null; echo "$gearshift_per_node $gearshift_cpus"'
    for environ, ranks_and_cpus in (
        ({}, "1 8"),
        ({"SLURM_JOB_GPUS": "2,3"}, "2 4"),
        ({"SLURM_GPUS_ON_NODE": "4", "GEARSHIFT_RANKS_PER_NODE": "8"}, "8 1"),
        ({"SLURM_GPUS_ON_NODE": "4", "SLURM_JOB_CPUS_PER_NODE": "2"}, "4 0"),
    ):
        assert cluster.run(text, **environ) == ranks_and_cpus, environ


def test_srun_gets_the_sizes_of_the_allocation_not_of_the_request(cluster):
    stale = {"SLURM_NTASKS": "77", "SLURM_CPUS_PER_TASK": "3", "SLURM_TRES_PER_TASK": "cpu=3"}
    cluster.train(PUBLISH % "done 0" + "; env >env", SLURM_GPUS_ON_NODE="2", **stale)
    (call,) = cluster.calls("srun")
    for option in ("--nodes=2 ", "--ntasks=4 ", "--ntasks-per-node=2 ", "--cpus-per-task=4 "):
        assert option in call
    assert "--kill-on-bad-exit=1" in call
    left = (cluster.folder / "env").read_text()
    assert not [name for name in stale if f"{name}=" in left]
    assert "OMP_NUM_THREADS=4" in left


def test_torchrun_is_one_task_per_node_and_what_a_site_sets_precedes_the_launcher(cluster):
    environ = {"SLURM_GPUS_ON_NODE": "2", "GEARSHIFT_LAUNCH": "torchrun"}
    cluster.train(PUBLISH % "done 0", **environ)
    (call,) = cluster.calls("srun")
    assert "--ntasks=2 --ntasks-per-node=1 --cpus-per-task=8 " in call
    assert f"bash {FOLDER}/node.sh 2 2 python -- --out run" in call
    site = cluster.folder / "site.sh"
    site.write_text("echo $undefined; GEARSHIFT_CONTAINER='box exec' GEARSHIFT_PYTHON=py\n")
    cluster.train(PUBLISH % "done 0", GEARSHIFT_SITE=str(site))
    call = cluster.calls("srun")[-1]
    assert call.endswith(" box exec py -m launcher --out run")


def test_the_stages_are_those_that_the_program_trains_with_the_arguments(cluster):
    (cluster.folder / "job.sbatch").write_text((FOLDER / "staged.sbatch").read_text())
    (cluster.folder / "fabrice").mkdir()  # a name with that of a family in it
    (cluster.folder / "fabrice" / "a.txt").write_text("A text.\n")
    environ = {"GEARSHIFT_SLURM": str(FOLDER), "GEARSHIFT_PYTHON": sys.executable}
    ranks = PUBLISH.replace("run", "run/1-lower") % "done 0"
    job = cluster.start("--out", "run", "--data", "fabrice", RANKS=ranks, **environ)
    log, _ = job.communicate()
    assert job.returncode == 0, log
    assert "--stage lower --out run/1-lower" in cluster.calls("srun")[-1]
    assert "stage upper is job 8" in log


def test_a_generation_is_the_first_job_and_the_number_of_restarts(cluster):
    text = 'gearshift_begin 2>/dev/null; echo "$GEARSHIFT_JOB.$GEARSHIFT_GENERATION"'
    leaked = {"SLURM_RESTART_COUNT": "5", "GEARSHIFT_JOB": "3", "GEARSHIFT_GENERATION": "9"}
    assert cluster.run(text, **leaked) == "7.0"
    array = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}
    assert cluster.run(text, **array) == "7_2.0"
    assert "show job -o 7_2" in cluster.calls("scontrol")[-1]
    assert cluster.run(text, GEARSHIFT_JOB="3", GEARSHIFT_GENERATION_BASE="4") == "3.4"


@pytest.mark.parametrize(("published", "code"), [("done 0", 0), ("failed 1", 1)])
def test_the_outcome_of_rank_0_decides_not_the_exit_code_of_srun(cluster, published, code):
    assert cluster.train(PUBLISH % published + "; exit 143")[0] == code
    assert not cluster.calls("scontrol requeue")


def test_again_requeues_the_element_and_not_the_array(cluster):
    array = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}
    code, _ = cluster.train(PUBLISH % "again 75", **array)
    assert code == 143  # Slurm ends a requeued job by SIGTERM
    assert cluster.calls("scontrol requeue") == ["scontrol requeue 7_2"]


def test_requeues_without_a_new_checkpoint_end(cluster):
    (cluster.folder / "run" / "slurm").mkdir(parents=True)
    (cluster.folder / "run" / "slurm" / "saved").write_text("7 nothing\n" * 10)
    code, log = cluster.train(PUBLISH % "again 75")
    assert code == 1
    assert "no new checkpoint in 10 requeues" in log
    assert not cluster.calls("scontrol requeue")


def test_a_job_that_cannot_be_requeued_continues_in_an_equal_one(cluster):
    (cluster.folder / "record").write_text(RECORD.format(requeue=0))
    code, log = cluster.train(PUBLISH % "again 75", SBATCH_ACCOUNT="physics")
    assert code == 0
    assert "continues as job 8" in log
    (call,) = cluster.calls("sbatch")
    for option in (
        "--account=physics --partition=gpu --time=04:00:00 --cpus-per-task=8 --mem=64G "
        "--gres=gpu:2 --exclusive --no-requeue",
        "--dependency=afterany:7",
        "job.sbatch --out run",
    ):
        assert option in call
    assert "--nodes" not in call  # the range of the header allows two nodes
    assert "7 1 " in (cluster.folder / "calls").read_text().splitlines()


def test_term_before_the_ranks_start_ends_the_job(cluster):
    (cluster.folder / "site.sh").write_text("touch started; while :; do sleep 0.1; done\n")
    site = str(cluster.folder / "site.sh")
    job = cluster.start("--out", "run", GEARSHIFT_SITE=site)
    until((cluster.folder / "started").exists, job)
    job.send_signal(signal.SIGTERM)
    job.wait()
    assert job.returncode == 143
    assert not cluster.calls("srun")
