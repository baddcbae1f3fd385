"""A small server of a tracker on a real socket, that can fail in several ways."""

import gzip
import json
import threading
from abc import ABC, abstractmethod
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class LocalServer(ABC):
    """Answers by `answer(method, path, body)`; `fails` is how it responds from now on."""

    def __init__(self):
        self.fails = None
        """None; a status; or "drop", which closes the connection."""
        self.bytes = bytearray()
        """All bodies."""
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self.over = threading.Event()

    @abstractmethod
    def answer(self, method, path, body):
        """The content of the response: a JSON object; with "error_code": what was not found."""

    def serve(self):
        self._http.serve_forever(poll_interval=0.02)

    def close(self):
        """Stop: from now on connections are refused."""
        self.over.set()
        self._http.shutdown()
        self._http.server_close()

    def _handler(server):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle(self):
                with suppress(ConnectionError):
                    super().handle()

            def log_message(self, *args):
                """Nothing."""

            def do_GET(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                server.bytes += body
                if isinstance(server.fails, int):
                    return self._respond({"error": "no"}, server.fails)
                if server.fails:
                    self.close_connection = True
                    return None
                content = server.answer(self.command, self.path, body)
                return self._respond(content, 404 if "error_code" in content else 200)

            do_POST = do_PUT = do_GET

            def _respond(self, content, status=200):
                text = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        return Handler


@contextmanager
def serving(server):
    """Let `server` answer for a while."""
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        if not server.over.is_set():
            server.close()
