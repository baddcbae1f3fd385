"""The options of sbatch, by name and by letter; versions 20 to 24."""

from __future__ import annotations

_SWITCHES = """
contiguous exclusive get-user-env hold ignore-pbs no-kill no-requeue overcommit oversubscribe
reboot requeue spread-job use-min-nodes
"""
_WITH_VALUE = """
account acctg-freq array batch bb bbf begin chdir cluster-constraint clusters comment
constraint container core-spec cores-per-socket cpu-freq cpus-per-gpu cpus-per-task deadline
delay-boot dependency distribution error exclude export export-file extra-node-info gid
gpu-bind gpu-freq gpus gpus-per-node gpus-per-socket gpus-per-task gres gres-flags hint input
job-name kill-on-invalid-dep licenses mail-type mail-user mcs-label mem mem-bind mem-per-cpu
mem-per-gpu mincpus network nice no-bell nodefile nodelist nodes ntasks ntasks-per-core
ntasks-per-gpu ntasks-per-node ntasks-per-socket open-mode output parsable partition power
prefer priority profile propagate qos quiet reservation signal sockets-per-node switches
test-only thread-spec threads-per-core time time-min tmp tres-per-task uid verbose wait
wait-all-nodes wckey wrap
"""
SWITCHES = frozenset(_SWITCHES.split())
"""Options that may stand without a value."""
OPTIONS = SWITCHES | frozenset(_WITH_VALUE.split())
"""All long options, without their dashes."""
SHORT = {
    **{"A": "account", "a": "array", "C": "constraint", "c": "cpus-per-task", "D": "chdir"},
    **{"d": "dependency", "e": "error", "F": "nodefile", "G": "gpus", "H": "hold", "i": "input"},
    **{"J": "job-name", "k": "no-kill", "L": "licenses", "M": "clusters", "m": "distribution"},
    **{"N": "nodes", "n": "ntasks", "O": "overcommit", "o": "output", "p": "partition"},
    **{"q": "qos", "S": "core-spec", "s": "oversubscribe", "t": "time", "W": "wait"},
    **{"w": "nodelist", "x": "exclude"},
}
"""The letters of some of them."""


def option_of(word: str) -> str | None:
    """The long option of sbatch that a word such as `-pdebug` or `--time=1` is; None: it is none.

    Without its dashes.
    """
    if word.startswith("--"):
        name = word[2:].partition("=")[0]
        return name if name in OPTIONS else None
    return SHORT.get(word[1:2]) if word.startswith("-") else None
