"""The machines of a cluster, each a process tree in namespaces of its own."""

import signal
import subprocess

from tests.slurm.cluster.processes import only_child, wait_until
from tests.slurm.cluster.texts import HEAD, SUBNET

NAMESPACES = ("--net", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
CAPABLE = (
    "hostname probe && ip link add name probe type bridge"
    " && ip link add name probe0 type veth peer name probe1"
)
"""The parts of a node; True if this machine allows them."""
HEAD_INIT = f"""
hostname head; mount --bind "$1/hosts" /etc/hosts; ip link set lo up
ip link add br0 type bridge; ip addr add {HEAD}/24 dev br0; ip link set br0 up
: >"$1/run/ready.head"; exec sleep infinity
"""

# A shell is the node's first process: it reaps the orphans that slurmd leaves to it.
NODE_INIT = """
hostname "node$2"; mount --bind "$1/hosts" /etc/hosts; ip link set lo up
trap : TERM INT HUP; : >"$1/run/ready.node$2"; while :; do sleep 1000 & wait $!; done
"""


class Machines:
    """Each node has a network, a name and a process tree of its own; a bridge joins them."""

    def __init__(self, folder, processes):
        self.folder, self.processes = folder, processes

    def begin(self):
        """Create the host of the controller."""
        command = ["unshare", "--net", "--uts", "--mount", "--propagation", "private"]
        pid = self._start("head", [*command, "bash", "-ec", HEAD_INIT, "head", str(self.folder)])
        (self.folder / "run" / "head").write_text(str(pid))

    def start_controller(self):
        """Start slurmctld, unless it runs."""
        if self.processes.pid("slurmctld") is None:
            # Without --pid nsenter becomes the program it starts: the recorded one is slurmctld.
            self.processes.start("slurmctld", [*self._within("head"), *controller(self.folder)])

    def start_node(self, number):
        """Start the node, or only its slurmd if that is all that is missing."""
        name = f"node{number}"
        if self.processes.pid(name) is None:
            self._boot(number)
        if self.processes.pid(f"{name}.slurmd") is None:
            outer = f"{name}.slurmd.nsenter"
            command = [*self._within(name, "--pid"), *daemon(self.folder, name)]
            self._remember_child(f"{name}.slurmd", self.processes.start(outer, command))

    def cut_power(self, number):
        """End every process of the node at once."""
        name = f"node{number}"
        self.processes.stop(name, signal.SIGKILL)
        for part in (f"{name}.slurmd", f"{name}.slurmd.nsenter", f"{name}.unshare"):
            self.processes.stop(part, signal.SIGKILL)

    def kill_slurmd(self, number):
        """End the daemon only; processes started by it continue."""
        self.processes.stop(f"node{number}.slurmd", signal.SIGKILL)
        self.processes.stop(f"node{number}.slurmd.nsenter", signal.SIGKILL)

    def end(self):
        self.processes.stop("head", signal.SIGKILL)

    def _boot(self, number):
        name, head = f"node{number}", str(self.processes.pid("head"))
        init = ["bash", "-ec", NODE_INIT, name, str(self.folder), str(number)]
        command = ["unshare", *NAMESPACES, "--propagation", "private", *init]
        self._remember_child(name, self._start(f"{name}.unshare", command, ready=name))
        node = str(self.processes.pid(name))
        pair = ["type", "veth", "peer", "name", "eth0", "netns", node]
        subprocess.run(["ip", "link", "add", f"v{number}", "netns", head, *pair], check=True)
        inside = f"ip addr add {SUBNET}.{number}/24 dev eth0; ip link set eth0 up"
        outside = f"ip link set v{number} master br0; ip link set v{number} up"
        subprocess.run([*self._within(name), "sh", "-ec", inside], check=True)
        subprocess.run([*self._within("head"), "sh", "-ec", outside], check=True)

    def _start(self, name, command, ready=None):
        """Start a namespace's first process, and wait for its ready file."""
        sign = self.folder / "run" / f"ready.{ready or name}"
        sign.unlink(missing_ok=True)
        pid = self.processes.start(name, command)
        if not wait_until(sign.exists, seconds=10):
            raise RuntimeError(f"{name} did not start: see {self.processes.logs / name}.out")
        return pid

    def _remember_child(self, name, parent):
        if not wait_until(lambda: only_child(parent), seconds=10):
            raise RuntimeError(f"{name} did not start: see {self.processes.logs}")
        child = only_child(parent)
        assert child is not None
        self.processes.remember(name, child)

    def _within(self, name, *more):
        target = str(self.processes.pid(name))
        return ["nsenter", "--target", target, "--net", "--uts", "--mount", *more, "--"]


def controller(folder):
    """The command of slurmctld."""
    return ["/usr/sbin/slurmctld", "-D", "-f", f"{folder}/slurm.conf"]


def daemon(folder, node):
    """The command of a node's slurmd."""
    return ["/usr/sbin/slurmd", "-D", "-f", f"{folder}/slurm.conf", "-N", node]


def are_allowed():
    """Whether nodes may have a network, a name and a process tree of their own here."""
    command = ["unshare", *NAMESPACES, "sh", "-c", CAPABLE]
    return subprocess.run(command, capture_output=True, timeout=20).returncode == 0
