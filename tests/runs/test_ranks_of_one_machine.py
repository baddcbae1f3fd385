"""Ranks of one machine: one is killed, and another user of the machine attacks them."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from tests.runs.conftest import ROOT, environment, losses
from tests.waiting import LIMIT_S

TASK = """
import os, signal
import torch
from gearshift import CustomTask


class Killed(CustomTask):
    '''Rank 1 is killed in its first evaluation after a step.'''

    steps = 0

    def samples(self, split):
        generator = torch.Generator().manual_seed(1)
        return [{"x": x} for x in torch.randn(24, 4, generator=generator)]

    def build(self):
        torch.manual_seed(7)
        return torch.nn.Linear(4, 4)

    def measure(self, model, batch):
        if torch.is_grad_enabled():
            self.steps += 1
        elif self.steps and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        x = batch["x"]
        return {"loss": (model(x) - x).square().mean(1).sum()}
"""


def as_srun(rank):
    """The variables that srun gives to a rank of two on one node."""
    return {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_TASKS_PER_NODE": "2",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
        "SLURM_NODEID": "0",
    }


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
def test_a_rank_that_is_killed_in_an_evaluation_ends_the_others_who_name_it(tmp_path, engine):
    (tmp_path / "killed.py").write_text(TASK)
    words = ["--model", "killed:Killed", "--engine", engine, "--max-steps", "4", "--out", "run"]
    words += ["--batch-size", "8", "--set", "eval.every=2", "--set", "engine.timeout_s=100000"]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "launcher", *words],
            cwd=tmp_path,
            env=environment() | as_srun(rank),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        ends = [rank.communicate(timeout=LIMIT_S) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [1, -signal.SIGKILL], ends
    assert "lost rank 1" in ends[0][1]


ATTACKER = """
import os, socket, sys
kind = sys.argv[1]
connections, seen = [], set()
while True:
    for protocol in ("tcp", "tcp6", "udp", "udp6"):
        with open(f"/proc/net/{protocol}") as file:
            rows = [line.split() for line in file][1:]
        for row in rows:
            port = int(row[1].rpartition(":")[2], 16)
            if protocol.startswith("udp"):
                with socket.socket(type=socket.SOCK_DGRAM) as stranger:
                    stranger.sendto(os.urandom(160), ("127.0.0.1", port))
            elif row[3] == "0A" and (kind == "flood" or port not in seen) and len(connections) < 900:
                seen.add(port)
                for _ in range(100 if kind == "flood" else 4):
                    try:
                        stranger = socket.create_connection(("127.0.0.1", port), timeout=0.2)
                        stranger.send(os.urandom(64))
                    except OSError:
                        break
                    connections.append(stranger)
"""
IN_NAMESPACE = """
import encodings.idna, os, signal, socket, subprocess, sys
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
attack, *command = sys.argv[1:]
attacker = 0
if attack != "none":
    attacker = os.fork()
    if not attacker:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        sys.argv[1:] = [attack]
        exec(os.environ["ATTACKER"])
code = subprocess.call(command)
if attacker:
    assert os.waitpid(attacker, os.WNOHANG) == (0, 0), "it attacked until the end"
    os.kill(attacker, signal.SIGKILL)
sys.exit(code)
"""
CAN_ATTACK = os.geteuid() == 0 and shutil.which("unshare") and shutil.which("ip")


@pytest.mark.slow
@pytest.mark.skipif(not CAN_ATTACK, reason="needs root, unshare and ip")
def test_losses_are_bit_equal_beside_an_attacker(tmp_path):
    """Another user of the machine sends to each port that it finds, in a network of its own."""
    seen = {}
    for attack in ("none", "garbage", "flood"):
        words = ["--model", "language:tiny", "--engine", "ddp", "--nproc", "2", "--max-steps", "3"]
        words += ["--out", str(tmp_path / attack), "--set", "eval.share=0.001"]
        command = [sys.executable, "-m", "launcher", *words, "--set", "log.every=1"]
        done = subprocess.run(
            ["unshare", "-n", sys.executable, "-c", IN_NAMESPACE, attack, *command],
            cwd=ROOT,
            env=environment() | {"ATTACKER": ATTACKER},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        assert done.returncode == 0, (attack, done.stderr)
        seen[attack] = losses(tmp_path / attack)
    assert len(seen["none"]) == 3
    assert seen["garbage"] == seen["flood"] == seen["none"], json.dumps(seen)
