"""The watcher of a cluster: `python -m tests.slurm.cluster FOLDER PROCESS`.

When the process has ended, it stops the cluster in FOLDER, and removes the folder.
"""

import os
import select
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from tests.slurm.cluster.cluster import Cluster


def main(folder, process):
    """Stop the cluster when the process has ended."""
    with suppress(ProcessLookupError):
        select.select([os.pidfd_open(process)], [], [])
    Cluster(folder).down()
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
