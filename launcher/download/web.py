"""Files on web servers: ranges, redirects, proxies, ~/.netrc, and the meaning of responses."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from email.utils import mktime_tz, parsedate_tz
from http.client import responses
from urllib.parse import urljoin

import requests
from requests import exceptions

from launcher.download.transfer import Body, Mismatch, Transient, settings_error

_PIECE_BYTES = 1 << 14
"""At most this much is lost if a connection breaks."""
_MAX_REDIRECTS = 10
_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
_BROKEN = (
    exceptions.ConnectionError,
    exceptions.Timeout,
    exceptions.ChunkedEncodingError,
    exceptions.ContentDecodingError,
)
_LOGIN = (
    "put user and password into ~/.netrc, or use  https://${USER}:${PASSWORD}@HOST/…  with "
    "environment variables"
)
_FIXES = {401: _LOGIN, 403: _LOGIN, 407: "put user and password of the proxy into HTTPS_PROXY"}


class WebSource(requests.Session):
    """One URL; uses the proxies and certificates of the environment, and ~/.netrc.

    Follows redirects to http and https only, and never from https to http. requests keeps user and
    password on the same host, and drops them on any other.
    """

    def __init__(self, url: str, shown: str, timeout_s: float) -> None:
        """`url` has its secrets; `shown` is for messages."""
        super().__init__()
        self.max_redirects = _MAX_REDIRECTS
        self._url, self._shown, self._timeout_s = url, shown, timeout_s

    def __call__(self, start: int, version: str | None) -> Body:
        """See transfer.Source. Touches the network."""
        headers = {"User-Agent": "gearshift", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if version is not None:
                headers["If-Range"] = version
        return self._body(self._response(headers), start, version)

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """The address that a response redirects to. Raises SettingsError from https to http."""
        location: str | None = super().get_redirect_target(resp)
        if location is not None:
            new = urljoin(resp.url, location)
            if resp.url.startswith("https:") and new.startswith("http:"):
                raise settings_error("the server redirects from https to http", self._shown)
        return location

    def _response(self, headers: dict[str, str]) -> requests.Response:
        try:
            return self.get(self._url, headers=headers, stream=True, timeout=self._timeout_s)
        except exceptions.TooManyRedirects:
            message = f"the server redirects more than {_MAX_REDIRECTS} times"
        except _BROKEN as error:
            message = _reason(error)
            if not isinstance(error, exceptions.SSLError) or "certificate" not in str(error):
                raise Transient(message) from None
            message = f"the server's certificate is not trusted: {message}"
            fix = "put the certificate of its authority into REQUESTS_CA_BUNDLE=FILE"
            raise settings_error(message, self._shown, fix=fix) from None
        except ValueError:  # of requests too: no host, or another scheme
            message = "this URL, or the one it redirects to, is not a usable http or https URL"
        raise settings_error(message, self._shown)

    def _body(self, response: requests.Response, start: int, version: str | None) -> Body:
        status, headers = response.status_code, response.headers
        span = _RANGE.fullmatch(headers.get("Content-Range", ""))
        if status == 416 and start:
            response.close()
            if span and span[3] == str(start):  # nothing is missing
                return Body(start, start, version, iter(()))
            raise Mismatch
        if status not in (200, 206):
            response.close()
            message = f"the server responds {status} {responses.get(status, '')}".rstrip()
            if status in (408, 425, 429) or 500 <= status < 600:
                raise Transient(message, _retry_after_s(headers.get("Retry-After", "")))
            fix = _FIXES.get(status, "check whether the URL opens in a browser")
            raise settings_error(message, self._shown, fix=fix)
        if (encoding := headers.get("Content-Encoding", "")) not in ("identity", ""):
            response.close()
            message = f"the server sends the file as {encoding}, unrequested"
            raise settings_error(message, self._shown)
        now = _version(response)
        if status == 200:
            return Body(0, _length(response), now, _pieces(response))
        has_changed = None not in (version, now) and version != now
        if not start or span is None or span[1] != str(start) or has_changed:
            response.close()
            raise Mismatch
        total = None if span[3] == "*" else int(span[3])
        return Body(start, total, now, _pieces(response))


def _pieces(response: requests.Response) -> Iterator[bytes]:
    with response:
        try:
            yield from response.iter_content(_PIECE_BYTES)
        except _BROKEN as error:
            raise Transient(_reason(error)) from None


def _version(response: requests.Response) -> str | None:
    """The validator for If-Range; no weak entity tag. Source: RFC 9110, section 13.1.5."""
    etag = response.headers.get("ETag", "W/")
    version: str | None = response.headers.get("Last-Modified") if etag.startswith("W/") else etag
    return version


def _length(response: requests.Response) -> int | None:
    text = response.headers.get("Content-Length", "")
    is_chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
    return int(text) if text.isdecimal() and not is_chunked else None


def _retry_after_s(text: str) -> float:
    """Retry-After: seconds, or a date. Source: RFC 9110, section 10.2.3."""
    if text.strip().isdecimal():
        return float(text)
    date = parsedate_tz(text)
    return max(0.0, mktime_tz(date) - time.time()) if date else 0.0


def _reason(error: Exception) -> str:
    """Why a connection failed, without the URL, which may contain a secret."""
    if "timed out" in str(error):
        return "the server does not respond"
    causes = re.findall(r"\[Errno -?\d+\] ([\w ]+)", str(error))
    return causes[-1].lower() if causes else f"the connection broke ({type(error).__name__})"
