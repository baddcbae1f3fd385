"""Where a redirect of a web server leads, and where it must not."""

from __future__ import annotations

from urllib.parse import SplitResult, urljoin, urlsplit

from launcher.base import redaction
from launcher.download.errors import refused

MOST = 10
"""Redirects in a row that are followed."""


def followed(url: str, location: str, shown: str) -> str:
    """The URL that `url` is redirected to; user and password go along on the same host alone.

    `shown` names the file in messages. Raises SettingsError where it would be unsafe to follow.
    """
    scheme = location.partition(":")[0] if ":" in location else "nothing"
    try:
        old, new = urlsplit(url), urlsplit(urljoin(url, location))
        is_web = new.scheme in ("http", "https") and redaction.url_problem(new.geturl()) is None
    except ValueError:
        is_web = False
    if not is_web:
        what = f"the server redirects to what is no web address: {scheme[:20]}:"
        raise refused(what, shown, "redirects to http and https")
    if old.scheme == "https" and new.scheme == "http":
        what = f"the server redirects from https to http, at {new.hostname}"
        raise refused(what, shown, "redirects that stay encrypted")
    if _origin(old) == _origin(new) and old.username is not None and new.username is None:
        user = old.netloc.rpartition("@")[0]
        return new._replace(netloc=f"{user}@{new.netloc}").geturl()
    return new.geturl()


def _origin(url: SplitResult) -> tuple[str, str | None, int | None]:
    return url.scheme, url.hostname, url.port
