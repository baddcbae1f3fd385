"""A running cluster: started, queried, damaged in several ways, stopped."""

import getpass
import os
import secrets
import shutil
import signal
import stat
import subprocess
import time

from tests.slurm.cluster import texts
from tests.slurm.cluster.nodes import Machines, are_allowed
from tests.slurm.cluster.processes import Processes, wait_until

NEEDED = (
    *("/usr/sbin/munged", "/usr/sbin/slurmctld", "/usr/sbin/slurmd"),
    *("/usr/bin/sbatch", "/usr/bin/srun", "/usr/bin/scontrol"),
)
PACKAGES = "apt-get install --no-install-recommends slurm-wlm munge iproute2"


def missing():
    """Why no cluster can run on this machine; None if one can."""
    absent = [path for path in NEEDED if not os.access(path, os.X_OK)]
    if absent:
        return f"no {', '.join(absent)}: {PACKAGES}"
    return None if are_allowed() else "needs the right to make namespaces"


class Cluster:
    """The cluster with its files in `folder`, a short path that others may enter."""

    def __init__(self, folder, extra=()):
        """`extra` are lines for slurm.conf."""
        self.folder, self.extra = folder.resolve(), extra
        self.processes = Processes(self.folder / "log")
        self.machines = Machines(self.folder, self.processes)

    @property
    def environment(self):
        """The environment in which Slurm's commands use this cluster."""
        mine = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))}
        path = f"{self.folder}/bin{os.pathsep}{mine['PATH']}"
        return mine | {"PATH": path, "SLURM_CONF": f"{self.folder}/slurm.conf"}

    def up(self):
        """Start everything and wait until all nodes are idle; the queue is empty.

        Raises RuntimeError, with the last lines of the daemons' logs, if it does not start.
        """
        self._write()
        self._start_munge()
        self.machines.begin()
        self.machines.start_controller()
        for number in texts.NODES:
            self.machines.start_node(number)
        self._wait(self._all_idle, 30)

    def down(self):
        """End every process of the cluster, its jobs first; files stay."""
        if self.processes.pid("slurmctld"):
            user = f"--user={getpass.getuser()}"
            self.try_command("scancel", user)
            self.try_command("scancel", "--signal=KILL", user)
        for number in texts.NODES:
            self.machines.cut_power(number)
        self.processes.stop("slurmctld")
        self.machines.end()
        self.processes.stop("munged")

    def command(self, *command, folder=None, **more):
        """The output of a command run in `folder`; `more` is added to its environment.

        Raises RuntimeError with its output if it fails.
        """
        done = subprocess.run(
            command,
            cwd=folder,
            env=self.environment | more,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}")
        return done.stdout.strip()

    def try_command(self, *command):
        """The output of a command; empty if the controller does not respond."""
        try:
            return self.command(*command)
        except (RuntimeError, subprocess.TimeoutExpired):
            return ""

    def restore_node(self, number):
        """Start a node, or its slurmd, again, and wait until jobs may use it."""
        self.machines.start_node(number)
        self._wait(lambda: self._usable(number), 30)

    def save_state(self, job):
        """Wait until the controller has saved its state; it does so 5 s after a change."""
        before = time.time()
        self.command("scontrol", "update", f"JobId={job}", f"Comment={before}")
        written = self.folder / "state" / "job_state"
        self._wait(lambda: written.exists() and written.stat().st_mtime > before, 60)

    def kill_controller(self):
        """Kill slurmctld; jobs continue without it."""
        self.processes.stop("slurmctld", signal.SIGKILL)

    def start_controller(self):
        """Start slurmctld again, and wait until it responds."""
        self.machines.start_controller()
        self._wait(lambda: self.try_command("sinfo", "-h"), 20)

    def _write(self):
        for name in ("state", "log", "run", "bin"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for name in ("state", "log", "run", "bin", "dev"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for folder in (self.folder, self.folder / "run"):
            folder.chmod(0o755)  # munged refuses a socket that others cannot reach
        for number in texts.NODES:
            (self.folder / f"spool.node{number}").mkdir(exist_ok=True)
        self._write_text("slurm.conf", texts.slurm_conf(self.folder, self.extra))
        self._write_text("gres.conf", texts.gres_conf(self.folder))
        self._write_text("cgroup.conf", "CgroupAutomount=no\n")
        self._write_text("hosts", texts.hosts())
        for number in range(texts.GPUS):
            _device(self.folder / "dev" / f"gpu{number}", number)
        for name in texts.COMMANDS:
            if real := shutil.which(name, path="/usr/bin:/bin"):
                self._write_text(f"bin/{name}", texts.command(real, self.folder))
                (self.folder / "bin" / name).chmod(0o755)

    def _write_text(self, name, text):
        (self.folder / name).write_text(text, encoding="utf-8")

    def _start_munge(self):
        run, log = self.folder / "run", self.folder / "log" / "munged.log"
        key = run / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        paths = {"key-file": key, "socket": run / "munge.sock", "pid-file": run / "munged.pid"}
        paths |= {"log-file": log, "seed-file": run / "munged.seed"}
        command = ["/usr/sbin/munged", "--foreground", "--num-threads=2"]
        self.processes.start("munged", command + [f"--{k}={v}" for k, v in paths.items()])
        self._wait((run / "munge.sock").exists, 10)

    def _all_idle(self):
        idle = self.try_command("sinfo", "-hN", "-p", "normal", "-t", "idle", "-o", "%N").split()
        return len(idle) >= len(texts.NODES)

    def _usable(self, number):
        name = f"node{number}"
        state = self.try_command("sinfo", "-h", "-n", name, "-p", "normal", "-o", "%t")
        if state.startswith(("drain", "drng")):  # a step could not be killed during the outage
            self.try_command("scontrol", "update", f"NodeName={name}", "State=RESUME")
        return state in ("idle", "mix", "alloc")

    def _wait(self, condition, seconds):
        """Wait for a condition. Raises RuntimeError with the last lines of the daemons' logs."""
        if not wait_until(condition, seconds):
            logs = {
                p.name: p.read_text(errors="replace")
                for p in sorted((self.folder / "log").iterdir())
            }
            lines = [
                f"{name}: {line}" for name, text in logs.items() for line in text.splitlines()[-5:]
            ]
            raise RuntimeError("\n".join(lines))


def _device(path, number):
    """A device that Slurm counts as a GPU and no process opens; a plain file if mknod is forbidden.

    With plain files Slurm still counts, but sets no CUDA_VISIBLE_DEVICES.
    """
    path.unlink(missing_ok=True)
    try:
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(240, number))
    except PermissionError:
        path.touch()
