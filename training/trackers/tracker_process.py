"""A process beside the run for the calls of a tracker that may hang, crash or take time."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any

_ROOT = str(Path(__file__).resolve().parents[2])
# The working directory is not searched: it may hold packages with the names of ours.
_CODE = (
    "import sys, runpy; root, module = sys.argv[1:3]; "
    "sys.path[:1] = [] if root in sys.path[1:] else [root]; sys.argv[1:] = []; "
    "runpy.run_module(module, run_name='__main__')"
)
Message = dict[str, Any]


class TrackerProcess:
    """Runs `module` in a process of its own, and exchanges JSON lines with it through queues.

    Only `end` waits. The process has its own session, so the signals of the run do not reach it;
    its input ends when the run ends.
    """

    def __init__(self, module: str) -> None:
        """Raises OSError if the process cannot be started."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CODE, _ROOT, module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._outgoing: SimpleQueue[Message | None] = SimpleQueue()
        self._incoming: SimpleQueue[Message] = SimpleQueue()
        assert self._process.stdin and self._process.stdout
        _start_thread(self._write, self._process.stdin)
        self._reader = _start_thread(self._read, self._process.stdout)

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def send(self, message: Message) -> None:
        """Queue `message`; a thread writes it once the pipe has room."""
        self._outgoing.put(message)

    def received(self) -> list[Message]:
        """The messages of the process since the last call."""
        messages = []
        while True:
            try:
                messages.append(self._incoming.get_nowait())
            except Empty:
                return messages

    def end(self, wait_s: float) -> bool:
        """Close its input and wait at most `wait_s`; whether it ended. It is killed otherwise."""
        self._outgoing.put(None)
        try:
            self._process.wait(wait_s)
            ended = True
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            ended = False
        self._reader.join(1.0)  # its last messages; a child that outlives it may hold the pipe open
        return ended

    def _write(self, pipe: IO[bytes]) -> None:
        try:
            while (message := self._outgoing.get()) is not None:
                pipe.write(json.dumps(message).encode() + b"\n")
                pipe.flush()
            pipe.close()
        except OSError:  # the process has ended: `is_alive` shows it
            return

    def _read(self, pipe: IO[bytes]) -> None:
        for line in pipe:
            self._incoming.put(json.loads(line))


def _start_thread(target: Callable[[IO[bytes]], None], pipe: IO[bytes]) -> threading.Thread:
    thread = threading.Thread(target=target, args=(pipe,), daemon=True)
    thread.start()
    return thread
