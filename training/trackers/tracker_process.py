"""A process beside the run that does for it what may hang, crash or take time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any

_HOME = str(Path(__file__).resolve().parents[2])
# The person's folder is not searched: it may hold packages that are called as ours are.
_CODE = (
    "import sys, runpy; home, module = sys.argv[1:3]; "
    "sys.path[:1] = [] if home in sys.path[1:] else [home]; sys.argv[1:] = []; "
    "runpy.run_module(module, run_name='__main__')"
)
Message = dict[str, Any]


class TrackerProcess:
    """Runs `module` in a process of its own, and exchanges JSON lines with it.

    No method but `end` waits for anything. The process is in a session of its own, where the
    signals meant for the run do not reach it, and sees its input end when the run is gone.
    """

    def __init__(self, module: str, environ: Mapping[str, str]) -> None:
        """Raises OSError where no process can be started."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CODE, _HOME, module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **environ},
            start_new_session=True,
        )
        self._to_send: SimpleQueue[Message | None] = SimpleQueue()
        self._heard: SimpleQueue[Message] = SimpleQueue()
        assert self._process.stdin and self._process.stdout
        self._writer = self._thread(self._write, self._process.stdin)
        self._reader = self._thread(self._read, self._process.stdout)

    @property
    def is_alive(self) -> bool:
        """Whether the process is still there."""
        return self._process.poll() is None

    def send(self, message: Message) -> None:
        """Have `message` sent, once there is room in the pipe."""
        self._to_send.put(message)

    def heard(self) -> list[Message]:
        """What it said since the last time."""
        found = []
        while True:
            try:
                found.append(self._heard.get_nowait())
            except Empty:
                return found

    def end(self, wait_s: float) -> bool:
        """Let it come to its end, for so long at most; whether it did. It is gone afterwards."""
        self._to_send.put(None)
        try:
            self._process.wait(wait_s)
            ended = True
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            ended = False
        self._reader.join(1.0)  # its last words; a child that outlives it may hold the pipe open
        return ended

    def _thread(self, target: Any, pipe: IO[bytes]) -> threading.Thread:
        thread = threading.Thread(target=target, args=(pipe,), daemon=True)
        thread.start()
        return thread

    def _write(self, pipe: IO[bytes]) -> None:
        try:
            while (message := self._to_send.get()) is not None:
                pipe.write(json.dumps(message).encode() + b"\n")
                pipe.flush()
            pipe.close()
        except OSError:  # it is gone; whoever asks `is_alive` is told
            return

    def _read(self, pipe: IO[bytes]) -> None:
        for line in pipe:
            self._heard.put(json.loads(line))
