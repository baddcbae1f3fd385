"""A web server of this machine that does what it is told, and much of it wrong."""

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
    """What the server does with one request."""

    status: int = 200
    body: bytes = BODY
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    """Hang up after so many bytes of the body."""
    length: int | None = None
    """The Content-Length to tell in the place of the true one; 0: none."""
    ranges: bool = True
    """Whether it answers a request for a part with that part."""
    silent: bool = False
    """Sends nothing at all until the client has gone."""
    chunked: bool = False
    holds: bool = False
    """Sends its body, and then nothing more, until the client has gone."""


class Server:
    """The answers to come, by the path that is asked for; the last one of a path stays."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.answers: dict[str, list[Answer]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        """Each request: its path, and its headers in small letters."""
        self.gone = threading.Event()

    def on(self, path: str, *answers: Answer) -> str:
        """Answer so when `path` is asked for; its URL."""
        self.answers[path] = list(answers) or [Answer()]
        return self.url + path

    @property
    def ranges(self) -> list[str | None]:
        """The Range of each request."""
        return [headers.get("range") for _, headers in self.asked]

    def next(self, path: str) -> Answer:
        """The answer to a request."""
        answers = self.answers.get(path.partition("?")[0])
        if not answers:
            return Answer(404, b"nothing here")
        return answers.pop(0) if answers[1:] else answers[0]


@contextmanager
def serving() -> Iterator[Server]:
    """A server that runs meanwhile."""
    listener = ThreadingHTTPServer(("127.0.0.1", 0), _Requests)
    listener.daemon_threads = True
    listener.told = server = Server(listener.server_port)
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
        server: Server = self.server.told
        headers = {name.lower(): value for name, value in self.headers.items()}
        server.asked.append((self.path, headers))
        answer = server.next(self.path)
        self.close_connection = True
        if answer.silent:
            server.gone.wait(20)
            return
        etag = answer.headers.get("ETag")
        if answer.status == 200 and etag is not None and headers.get("if-none-match") == etag:
            answer = Answer(304, b"", answer.headers)
        start = self._start(answer, headers)
        self._head(answer, start)
        self._send(answer, answer.body[start or 0 :])

    def _start(self, answer: Answer, headers: dict[str, str]) -> int | None:
        """Where the answer begins; None: it is the whole."""
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
                self.server.told.gone.wait(20)
        except OSError:
            pass  # the client has seen enough

    def log_message(self, *args: object) -> None:
        """Say nothing."""
