"""Names of files that every system takes, and that stay where they are put."""

from __future__ import annotations

import os
import re

_UNSAFE = re.compile(r'[<>:"/\\|?*]+')
_DEVICES = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10))}
_LONGEST_BYTES = 200
"""File systems take 255; the rest is for what we put behind a name."""


def safe(name: str) -> str:
    """`name` with what some system does not take replaced by `-`; may be empty."""
    printable = "".join(letter if letter.isprintable() else "-" for letter in name)
    return _UNSAFE.sub("-", printable).strip(" .-")[-_LONGEST_BYTES:]


def fault(name: str) -> str | None:
    """Why a file of ours cannot have that name on every system; None: it can."""
    if _UNSAFE.search(name) or not name.isprintable():
        return 'holds one of  < > : " / \\ | ? *  or a control character'
    if not name or name != name.strip(" .") or name[0] == "-":
        return "is empty, or begins with a dot or -, or ends in a dot or a blank"
    if _is_device(name):
        return "is the name of a device on Windows"
    return "is too long" if len(os.fsencode(name)) > _LONGEST_BYTES else None


def member_fault(name: str, is_windows: bool = os.name == "nt") -> str | None:
    """Why a path within an archive is not unpacked; None: it stays within, and can be written.

    `name` has `/` between its parts.
    """
    parts = name.split("/")
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "is an absolute path"
    if ".." in parts:
        return "leads out of the folder"
    if "\\" in name or any(ord(letter) < 32 or letter == "\x7f" for letter in name):
        return "holds a backslash or a control character"
    if any(len(os.fsencode(part)) > 255 for part in parts):
        return "has a part that is longer than 255 bytes"
    if is_windows and any(fault(part) for part in parts if part):
        return "cannot be written on Windows"
    return None


def _is_device(name: str) -> bool:
    return name.split(".")[0].strip().lower() in _DEVICES
