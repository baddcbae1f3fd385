"""A local web server with scripted responses, many of them faulty."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BODY = bytes(range(256)) * 1024
"""A quarter of a MiB."""


@dataclass
class Response:
    """The response to one request."""

    status: int = 200
    body: bytes = BODY
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    """Close the connection after this many bytes of the body."""
    length: int | None = None
    """The Content-Length to send instead of the true one; 0: none."""
    chunked: bool = False
    has_ranges: bool = False
    """Sends the rest of the body where the request asks for it."""
    keeps_open: bool = False
    """Sends its body, and keeps the connection open."""


class Server:
    """The responses to come by path; the last one of a path repeats."""

    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}"
        self.responses: dict[str, list[Response]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        """Each request: its path, and its headers in lower case."""
        self.stopping = threading.Event()

    def on(self, path, *responses):
        """Set the responses to `path`; gives its URL."""
        self.responses[path] = list(responses) or [Response()]
        return self.url + path

    def next(self, path, command="GET"):
        """The response to a request; one of HEAD stays the next one."""
        responses = self.responses.get(path.partition("?")[0])
        if not responses:
            return Response(404, b"nothing here")
        return responses.pop(0) if responses[1:] and command == "GET" else responses[0]


@contextmanager
def serving():
    """A running server."""
    http_server = ThreadingHTTPServer(("127.0.0.1", 0), _Requests)
    http_server.daemon_threads = True
    http_server.script = server = Server(http_server.server_port)
    thread = threading.Thread(target=http_server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stopping.set()
        http_server.shutdown()
        thread.join()
        http_server.server_close()


class _Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server: Server = self.server.script
        headers = {name.lower(): value for name, value in self.headers.items()}
        server.requests.append((self.path, headers))
        response = server.next(self.path, self.command)
        self.close_connection = True
        body = response.body
        status = response.status
        if response.has_ranges and "range" in headers:
            body = body[int(headers["range"].removeprefix("bytes=").rstrip("-")) :]
            status = 206
        self.send_response(status)
        length = len(body) if response.length is None else response.length
        if response.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif length or response.length is None:
            self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")  # or a client may use it once more
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self._send(response, body)

    do_HEAD = do_GET

    def _send(self, response, body):
        sent = body if response.cut is None else body[: response.cut]
        try:
            if response.chunked:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(body), sent))
                if response.cut is None:
                    self.wfile.write(b"0\r\n\r\n")
            else:
                self.wfile.write(sent)
            if response.keeps_open:
                self.server.script.stopping.wait(20)
        except OSError:
            pass  # the client closed the connection

    def log_message(self, *args):
        """Print nothing."""
