"""A file on a web server, whole or from some byte on, through redirects and proxies."""

from __future__ import annotations

import re
from collections.abc import Iterator

import requests
from requests.exceptions import (
    ChunkedEncodingError,
    ConnectionError,
    ContentDecodingError,
    RequestException,
    SSLError,
    Timeout,
)

from launcher.download import redirects
from launcher.download.answers import fault_of, reason, told, wait_asked
from launcher.download.errors import StartOver, Transient, refused
from launcher.download.record import Stamp
from launcher.download.source import Body

_PIECE = 1 << 14
"""Bytes at once; up to so many are lost where a connection breaks."""
_REDIRECTS = (301, 302, 303, 307, 308)
_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
_BROKEN = (ConnectionError, Timeout, ChunkedEncodingError, ContentDecodingError)


class HttpSource:
    """One URL. Proxies of the environment, ~/.netrc and REQUESTS_CA_BUNDLE are honoured.

    `whole` has its secrets; `shown` is what messages name.
    """

    def __init__(self, whole: str, shown: str, timeout_s: float) -> None:
        self._whole = whole
        self._shown = shown
        self._timeout_s = timeout_s
        self._session = requests.Session()

    def open(self, start: int, stamp: Stamp, unless: Stamp | None) -> Body | None:
        """As the contract says. Touches the network."""
        headers = {"User-Agent": "gearshift", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if stamp.strong is not None:
                headers["If-Range"] = stamp.strong
        elif unless is not None and unless.etag is not None:
            headers["If-None-Match"] = unless.etag
        elif unless is not None and unless.modified is not None:
            headers["If-Modified-Since"] = unless.modified
        answer = self._answer(headers)
        if answer.status_code == 304 and unless is not None and not start:
            answer.close()
            return None
        return self._body(answer, start, stamp)

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def _answer(self, headers: dict[str, str]) -> requests.Response:
        """The answer behind all redirects."""
        url = self._whole
        for _ in range(redirects.MOST + 1):
            answer = self._get(url, headers)
            if answer.status_code not in _REDIRECTS or "Location" not in answer.headers:
                return answer
            answer.close()
            url = redirects.followed(url, answer.headers["Location"], self._shown)
        raise refused(f"the server redirects more than {redirects.MOST} times", self._shown)

    def _get(self, url: str, headers: dict[str, str]) -> requests.Response:
        try:
            return self._session.get(
                url, headers=headers, stream=True, allow_redirects=False, timeout=self._timeout_s
            )
        except SSLError as error:
            if "certificate" not in str(error).lower():
                raise Transient(reason(error)) from None
            what = f"the server's certificate is not trusted: {reason(error)}"
            fix = "put the certificate of its authority into REQUESTS_CA_BUNDLE=FILE"
            raise refused(what, self._shown, fix=fix) from None
        except _BROKEN as error:
            raise Transient(reason(error)) from None
        except RequestException as error:  # such as a host name that cannot be one
            raise refused(f"the URL cannot be used: {reason(error)}", self._shown) from None

    def _body(self, answer: requests.Response, start: int, stamp: Stamp) -> Body:
        status, headers = answer.status_code, answer.headers
        if status == 416 and start:
            answer.close()
            match = _RANGE.fullmatch(headers.get("Content-Range", ""))
            if match and match[3] == str(start):  # nothing is missing
                return Body(start, start, stamp, iter(()))
            raise StartOver
        if status not in (200, 206):
            answer.close()
            if (wait_s := wait_asked(status, headers)) is not None:
                raise Transient(told(status), wait_s)
            raise fault_of(status, self._shown)
        if headers.get("Content-Encoding", "identity") not in ("identity", ""):
            answer.close()
            what = f"the server sends the file as {headers['Content-Encoding']}, unasked"
            raise refused(what, self._shown)
        now = Stamp(headers.get("ETag"), headers.get("Last-Modified"))
        if status == 206:
            total = _resumed_total(answer, start, stamp, now)
        else:
            start, total = 0, _length(answer)
        return Body(start, total, now, self._pieces(answer))

    def _pieces(self, answer: requests.Response) -> Iterator[bytes]:
        with answer:
            try:
                yield from answer.iter_content(_PIECE)
            except _BROKEN as error:
                raise Transient(reason(error)) from None


def _length(answer: requests.Response) -> int | None:
    text = answer.headers.get("Content-Length", "")
    is_chunked = "chunked" in answer.headers.get("Transfer-Encoding", "").lower()
    return int(text) if text.isdecimal() and not is_chunked else None


def _resumed_total(answer: requests.Response, start: int, stamp: Stamp, now: Stamp) -> int | None:
    """Bytes of the whole file. Raises StartOver where the rest is not the rest of what we have."""
    match = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    changed = any(
        before is not None and after is not None and before != after
        for before, after in ((stamp.etag, now.etag), (stamp.modified, now.modified))
    )
    if match is None or match[1] != str(start) or not start or changed:
        answer.close()
        raise StartOver
    return None if match[3] == "*" else int(match[3])
