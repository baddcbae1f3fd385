"""What a web server's answer means to us, and what broke where there is none."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from launcher.base.diagnostics import SettingsError
from launcher.download.errors import refused

_MAY_PASS = (408, 425, 429)
_LOGIN = (
    "put user and password into ~/.netrc, or write  https://${USER}:${PASSWORD}@HOST/…  with "
    "variables of the environment"
)
_MENDS = {
    401: _LOGIN,
    403: _LOGIN,
    404: "look whether the URL opens in a browser",
    407: "put user and password of the proxy into HTTPS_PROXY",
    410: "look for where the file has moved to",
}


def wait_asked(status: int, headers: Mapping[str, str]) -> float | None:
    """Seconds the server asks to wait before another try, 0 if it does not say.

    None: another try would be in vain.
    """
    if status not in _MAY_PASS and not 500 <= status < 600:
        return None
    return _seconds(headers.get("Retry-After", ""))


def told(status: int) -> str:
    """An answer in words: those of its number, not those of the server."""
    known = {one.value: one.phrase for one in HTTPStatus}
    return f"the server answers {status} {known.get(status, '')}".rstrip()


def fault_of(status: int, url: str) -> SettingsError:
    """What to tell of an answer that brings no file."""
    return refused(told(status), url, fix=_MENDS.get(status))


def reason(error: BaseException) -> str:
    """What broke, in words and without the URL, which may hold a secret."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            return f"the host is not found ({cause.strerror})"
        if isinstance(cause, TimeoutError):
            return "the server is silent"
        if isinstance(cause, OSError) and cause.strerror and cause.errno:
            return cause.strerror.lower()
        if type(cause).__name__ in _NAMED:
            return _NAMED[type(cause).__name__]
    return f"the connection failed ({type(causes[-1]).__name__})"


_NAMED = {
    "ReadTimeoutError": "the server is silent",
    "ConnectTimeoutError": "the server is silent",
    "RemoteDisconnected": "the server hung up",
    "IncompleteRead": "the connection broke off",
    "InvalidChunkLength": "the connection broke off",
    "SSLCertVerificationError": "it cannot be verified",
    "ProxyError": "the proxy does not answer",
    "InvalidURL": "it is not understood",
}


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and all that it wraps, the innermost first."""
    seen: list[BaseException] = []
    todo: list[object] = [error]
    while todo:
        one = todo.pop()
        if isinstance(one, BaseException) and one not in seen:
            seen.append(one)
            todo += [*one.args, one.__cause__, one.__context__, getattr(one, "reason", None)]
    return reversed(seen)


def _seconds(text: str) -> float:
    """What Retry-After says: seconds, or a date. Source: RFC 9110, section 10.2.3."""
    if text.strip().isdecimal():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return 0.0
    aware = date if date.tzinfo else date.replace(tzinfo=timezone.utc)
    return max(0.0, (aware - datetime.now(timezone.utc)).total_seconds())
