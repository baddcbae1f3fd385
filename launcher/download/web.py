"""Files on web servers: ranges, redirects, proxies, ~/.netrc, and the meaning of responses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from urllib.parse import urljoin, urlsplit

import requests
from requests.exceptions import (
    ChunkedEncodingError,
    ConnectionError,
    ContentDecodingError,
    RequestException,
    SSLError,
    Timeout,
    TooManyRedirects,
)

from launcher.base import redaction
from launcher.download.transfer import Body, Mismatch, Stamp, Transient, settings_error

_PIECE_BYTES = 1 << 14
"""At most this much is lost if a connection breaks."""
_MAX_REDIRECTS = 10
_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
_BROKEN = (ConnectionError, Timeout, ChunkedEncodingError, ContentDecodingError)
_RETRIED = (408, 425, 429)
"""Besides 5xx."""
_LOGIN = (
    "put user and password into ~/.netrc, or use  https://${USER}:${PASSWORD}@HOST/…  with "
    "environment variables"
)
_FIXES = {401: _LOGIN, 403: _LOGIN, 407: "put user and password of the proxy into HTTPS_PROXY"}


class _Session(requests.Session):
    """Follows redirects to http and https only, and never from https to http.

    requests keeps user and password on the same host, and drops them on any other.
    """

    shown = ""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        location: str | None = super().get_redirect_target(resp)
        if location is None:
            return None
        scheme = location.partition(":")[0] if ":" in location else "nothing"
        try:
            old, new = urlsplit(resp.url), urlsplit(urljoin(resp.url, location))
            is_web = new.scheme in ("http", "https") and redaction.url_problem(new.geturl()) is None
        except ValueError:
            is_web = False
        if not is_web:
            message = f"the server redirects to {scheme[:20]}:, not to a web address"
            raise settings_error(message, self.shown, "redirects to http and https")
        if old.scheme == "https" and new.scheme == "http":
            message = f"the server redirects from https to http, at {new.hostname}"
            raise settings_error(message, self.shown, "redirects to https")
        return location


class WebSource:
    """One URL; uses the proxies and certificates of the environment, and ~/.netrc.

    `url` has its secrets; `shown` is for messages.
    """

    def __init__(self, url: str, shown: str, timeout_s: float) -> None:
        self._url, self._shown, self._timeout_s = url, shown, timeout_s
        self._session = _Session()
        self._session.max_redirects = _MAX_REDIRECTS
        self._session.shown = shown

    def __call__(self, start: int, stamp: Stamp) -> Body:
        """See transfer.Source. Touches the network."""
        headers = {"User-Agent": "gearshift", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if stamp.strong is not None:
                headers["If-Range"] = stamp.strong
        return self._body(self._get(headers), start, stamp)

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def _get(self, headers: dict[str, str]) -> requests.Response:
        try:
            return self._session.get(
                self._url, headers=headers, stream=True, timeout=self._timeout_s
            )
        except TooManyRedirects:
            message = f"the server redirects more than {_MAX_REDIRECTS} times"
            raise settings_error(message, self._shown) from None
        except SSLError as error:
            if "certificate" not in str(error).lower():
                raise Transient(_reason(error)) from None
            message = f"the server's certificate is not trusted: {_reason(error)}"
            fix = "put the certificate of its authority into REQUESTS_CA_BUNDLE=FILE"
            raise settings_error(message, self._shown, fix=fix) from None
        except _BROKEN as error:
            raise Transient(_reason(error)) from None
        except RequestException as error:  # for example an invalid host name
            raise settings_error(f"cannot use the URL: {_reason(error)}", self._shown) from None

    def _body(self, response: requests.Response, start: int, stamp: Stamp) -> Body:
        status, headers = response.status_code, response.headers
        if status == 416 and start:
            response.close()
            match = _RANGE.fullmatch(headers.get("Content-Range", ""))
            if match and match[3] == str(start):  # nothing is missing
                return Body(start, start, stamp, iter(()))
            raise Mismatch
        if status not in (200, 206):
            response.close()
            phrase = next((s.phrase for s in HTTPStatus if s.value == status), "")
            message = f"the server responds {status} {phrase}".rstrip()
            if status in _RETRIED or 500 <= status < 600:
                raise Transient(message, _retry_after_s(headers.get("Retry-After", "")))
            raise settings_error(
                message,
                self._shown,
                fix=_FIXES.get(status, "check whether the URL opens in a browser"),
            )
        if headers.get("Content-Encoding", "identity") not in ("identity", ""):
            response.close()
            message = f"the server sends the file as {headers['Content-Encoding']}, unrequested"
            raise settings_error(message, self._shown)
        now = Stamp(headers.get("ETag"), headers.get("Last-Modified"))
        if status == 206:
            total = _resumed_total(response, start, stamp, now)
        else:
            start, total = 0, _length(response)
        return Body(start, total, now, self._pieces(response))

    def _pieces(self, response: requests.Response) -> Iterator[bytes]:
        with response:
            try:
                yield from response.iter_content(_PIECE_BYTES)
            except _BROKEN as error:
                raise Transient(_reason(error)) from None


def _length(response: requests.Response) -> int | None:
    text = response.headers.get("Content-Length", "")
    is_chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
    return int(text) if text.isdecimal() and not is_chunked else None


def _resumed_total(response: requests.Response, start: int, stamp: Stamp, now: Stamp) -> int | None:
    """Bytes of the whole file. Raises Mismatch if the rest is of another version."""
    match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    changed = any(
        before is not None and after is not None and before != after
        for before, after in ((stamp.etag, now.etag), (stamp.modified, now.modified))
    )
    if match is None or match[1] != str(start) or not start or changed:
        response.close()
        raise Mismatch
    return None if match[3] == "*" else int(match[3])


def _retry_after_s(text: str) -> float:
    """Retry-After: seconds, or a date. Source: RFC 9110, section 10.2.3."""
    if text.strip().isdecimal():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return 0.0
    aware = date if date.tzinfo else date.replace(tzinfo=timezone.utc)
    return max(0.0, (aware - datetime.now(timezone.utc)).total_seconds())


def _reason(error: BaseException) -> str:
    """Why a connection failed, without the URL, which may contain a secret."""
    causes: list[BaseException] = []
    left: list[object] = [error]
    while left:
        cause = left.pop()
        if isinstance(cause, BaseException) and cause not in causes:
            causes.append(cause)
            left += [*cause.args, cause.__cause__, cause.__context__, getattr(cause, "reason", 0)]
    if any("Timeout" in type(cause).__name__ for cause in causes):
        return "the server does not respond"
    for cause in reversed(causes):
        if isinstance(cause, OSError) and cause.strerror and cause.errno:
            return cause.strerror.lower()
    return f"the connection broke ({type(causes[-1]).__name__})"
