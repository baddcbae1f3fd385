"""A local web server with scripted responses, many of them faulty."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BODY = bytes(range(256)) * 1024
"""A quarter of a MiB."""


@dataclass
class Answer:
    """The response to one request."""

    status: int = 200
    body: bytes = BODY
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    """Close the connection after this many bytes of the body."""
    length: int | None = None
    """The Content-Length to send instead of the true one; 0: none."""
    ranges: bool = True
    """Whether it supports ranges."""
    silent: bool = False
    """Sends nothing."""
    chunked: bool = False
    holds: bool = False
    """Sends its body, and keeps the connection open."""


class Server:
    """The responses to come by path; the last one of a path repeats."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.answers: dict[str, list[Answer]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        """Each request: its path, and its headers in lower case."""
        self.gone = threading.Event()

    def on(self, path: str, *answers: Answer) -> str:
        """Set the responses to `path`; gives its URL."""
        self.answers[path] = list(answers) or [Answer()]
        return self.url + path

    @property
    def ranges(self) -> list[str | None]:
        """The Range of each request."""
        return [headers.get("range") for _, headers in self.asked]

    def next(self, path: str) -> Answer:
        """The response to a request."""
        answers = self.answers.get(path.partition("?")[0])
        if not answers:
            return Answer(404, b"nothing here")
        return answers.pop(0) if answers[1:] else answers[0]


@contextmanager
def serving() -> Iterator[Server]:
    """A running server."""
    listener = ThreadingHTTPServer(("127.0.0.1", 0), _Requests)
    listener.daemon_threads = True
    listener.script = server = Server(listener.server_port)
    thread = threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.gone.set()
        listener.shutdown()
        thread.join()
        listener.server_close()


class _Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server: Server = self.server.script
        headers = {name.lower(): value for name, value in self.headers.items()}
        server.asked.append((self.path, headers))
        answer = server.next(self.path)
        self.close_connection = True
        if answer.silent:
            server.gone.wait(20)
            return
        start = self._start(answer, headers)
        self._head(answer, start)
        self._send(answer, answer.body[start or 0 :])

    def _start(self, answer: Answer, headers: dict[str, str]) -> int | None:
        """The first byte of the response; None: the whole file."""
        wanted = headers.get("range", "")
        if answer.status != 200 or not answer.ranges or not wanted.startswith("bytes="):
            return None
        stamps = (answer.headers.get("ETag"), answer.headers.get("Last-Modified"))
        if headers.get("if-range", stamps[0]) not in stamps:
            return None
        return int(wanted.removeprefix("bytes=").rstrip("-"))

    def _head(self, answer: Answer, start: int | None) -> None:
        whole, left = len(answer.body), len(answer.body) - (start or 0)
        if start is not None and not left:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{whole}")
        elif start is not None:
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        else:
            self.send_response(answer.status)
        length = left if answer.length is None else answer.length
        if answer.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif length or answer.length is None:
            self.send_header("Content-Length", str(length))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, answer: Answer, body: bytes) -> None:
        sent = body if answer.cut is None else body[: answer.cut]
        try:
            if answer.chunked:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(body), sent))
                if answer.cut is None:
                    self.wfile.write(b"0\r\n\r\n")
            else:
                self.wfile.write(sent)
            if answer.holds:
                self.server.script.gone.wait(20)
        except OSError:
            pass  # the client closed the connection

    def log_message(self, *args: object) -> None:
        """Print nothing."""
