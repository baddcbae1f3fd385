"""URLs that may hold a secret: shown without it, and used with it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

CUT = "***"
"""What stands in the place of a secret."""
SCHEMES = ("http", "https", "file")
_USER = re.compile(r"(?<=://)[^/?#\s'\"]*@")
_PARAMETER = re.compile(
    r"(?i)([?&][^=&\s]*(?:token|key|sig|secret|passw|credential|auth)[^=&\s]*=)"
    r"(?:\$\{\w+\}|[^&#\s'\"\]},])+"
)
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Url(str):
    """A URL that reads as its text without secrets; `whole` has them.

    So whatever prints, compares or saves it never has them: files of a run, `explain`, messages.
    """

    __slots__ = ("whole",)
    whole: str

    def __new__(cls, text: str) -> Url:
        made = super().__new__(cls, cut(text))
        made.whole = text.whole if isinstance(text, Url) else text
        return made


def cut(text: str) -> str:
    """`text` with the credentials of every URL in it replaced by ***.

    User and password before the host, and the values of parameters called token, key, signature
    and the like. A variable, ${NAME}, is no secret and stays.
    """
    return _PARAMETER.sub(_without_value, _USER.sub(_without_user, text))


def expanded(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """`text` with each ${NAME} replaced by that variable. Raises KeyError where it is not set."""
    return _VARIABLE.sub(lambda match: environ[match[1]], text)


def file_name(url: str) -> str:
    """The last part of a URL's path, decoded; empty where it ends in a slash."""
    return unquote(urlsplit(url).path).rpartition("/")[2]


def fault(url: str) -> str | None:
    """What is wrong with the form of a URL; None: nothing."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        return f"is no URL: {error}"
    if parts.scheme not in SCHEMES:
        return f"has the scheme '{parts.scheme}'" if parts.scheme else "has no scheme"
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            return "names a host"
        return None if parts.path.startswith("/") else "has no whole path"
    return None if parts.hostname else "names no host"


def _without_user(match: re.Match[str]) -> str:
    return match[0] if _is_variable(match[0][:-1]) else f"{CUT}@"


def _without_value(match: re.Match[str]) -> str:
    value = match[0][len(match[1]) :]
    return match[0] if _is_variable(value) else match[1] + CUT


def _is_variable(text: str) -> bool:
    """Whether each part of a `user:password` names a variable, and so gives nothing away."""
    return all(_VARIABLE.fullmatch(part) for part in text.split(":"))
