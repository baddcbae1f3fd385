"""Redaction of secrets in URLs and in texts; URLs that keep theirs for use."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote, unquote, urlsplit

MASK = "***"
"""Replaces a secret."""
SCHEMES = ("http", "https", "file")
_USER = re.compile(r"(?<=\w\w:/)(/?)(?:[^/?#\s]*|[^/?#\s:]*:(?!\d*(?:[/?#\s]|$))\S*)(?=@)")
"""User and password; a URL that became a path has one slash before them.

A password with a slash, which no URL may have, is behind a colon that no port follows.
"""
_PARAMETER = re.compile(
    r"(?i)([?&#;][^=&\s]*(?:token|key|sig|secret|pass|pwd|credential|auth)[^=&\s]*=)"
    r"(?:\$\{\w+\}(?=[\s&#'\"\]},]|$)|[^&#\s]+)"
)
"""Up to a blank: a secret may have any other letter, such as a quote, a comma or a bracket."""
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL)", re.IGNORECASE)


class Url(str):
    """A URL whose text is redacted; `unredacted` has the secrets.

    Printing, comparing or saving it can therefore never leak them.
    """

    __slots__ = ("unredacted",)
    unredacted: str

    def __new__(cls, text: str) -> Url:
        url = super().__new__(cls, redact(text))
        url.unredacted = text.unredacted if isinstance(text, Url) else text
        return url


def redact(text: str) -> str:
    """`text` with the credentials of every URL in it replaced by ***.

    Replaces user and password before the host, and the values of query parameters named like
    token, key or signature. A variable, ${NAME}, is not a secret and stays.
    """

    def masked(match: re.Match[str]) -> str:
        name = match[1]
        is_public = _is_variable(match[0].removeprefix(name))
        return match[0] if is_public else name + MASK

    return _PARAMETER.sub(masked, _USER.sub(masked, text))


def redact_values(value: Any, change: Callable[[str], str] = redact) -> Any:
    """Plain JSON, each text in it redacted by `change`, before it is encoded."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list | tuple):
        return [redact_values(item, change) for item in value]
    if isinstance(value, dict):
        redacted = {}
        for key, item in value.items():
            redacted[redact_values(key, change)] = redact_values(item, change)
        return redacted
    return value


def redact_variables(text: str, variables: Mapping[str, str]) -> str:
    """`text` without the values of environment variables named KEY, TOKEN, SECRET or PASSWORD.

    Also where a message shows such a value as Python or JSON writes it.
    """
    for name, value in variables.items():
        # A value below eight letters is a word like `true`, not a secret.
        if _SECRET_NAME.search(name) and len(value) >= 8:
            for written in (value, repr(value)[1:-1], json.dumps(value)[1:-1], quote(value)):
                text = text.replace(written, f"[{name}]")
    return text


def expand_variables(text: str, variables: Mapping[str, str]) -> str:
    """`text` with each ${NAME} replaced by that variable. Raises KeyError if it is not set."""
    return _VARIABLE.sub(lambda match: variables[match[1]], text)


def variables_of(text: str) -> list[str]:
    """The names of the variables, ${NAME}, in `text`."""
    return _VARIABLE.findall(text)


def is_private(url: str) -> bool:
    """Whether nobody between here and the host of `url` can read it: https, or this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme in ("https", "file"):
        return True
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def file_name(url: str) -> str:
    """The last part of a URL's path, decoded; empty if the path ends in a slash."""
    return unquote(urlsplit(url).path).rpartition("/")[2]


def url_problem(url: str) -> str | None:
    """Why a text is not a usable URL; None if it is one."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        return f"is not a URL: {error}"
    if "\\" in url:  # hosts of such texts differ by library
        return "has a backslash"
    if parts.scheme not in SCHEMES:
        return f"has the scheme '{parts.scheme}'" if parts.scheme else "has no scheme"
    if parts.scheme != "file":
        if not parts.hostname:
            return "names no host"
    elif parts.netloc not in ("", "localhost"):
        return "names a host"
    elif not parts.path.startswith("/"):
        return "has no absolute path"
    return None


def _is_variable(text: str) -> bool:
    """Whether each part of `user:password` is a variable, and reveals nothing."""
    return all(_VARIABLE.fullmatch(part) for part in text.split(":"))
