"""README and docs as tests read them: code blocks, links, headings."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOP = ("README.md", "AGENTS.md", "CHANGELOG.md", "CONTRIBUTING.md")
PATHS = [*(ROOT / name for name in TOP), *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^```([a-z]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_LAUNCHER = (["python", "-m", "launcher"], ["gearshift"])


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str

    @property
    def commands(self) -> list[list[str]]:
        """The commands of a shell block, one per line, as arguments; `a && b` is two."""
        joined = self.text.replace("\\\n", " ")
        lines = [part for line in joined.splitlines() for part in line.split(" && ")]
        return [args for line in lines if (args := shlex.split(line, comments=True))]


@dataclass(frozen=True)
class Page:
    """One page of the docs."""

    path: Path
    text: str

    @property
    def name(self) -> str:
        """Its path from the root."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def blocks(self) -> list[Block]:
        """Its fenced blocks."""
        return [Block(language, text) for language, text in _BLOCK.findall(self.text)]

    @property
    def links(self) -> list[str]:
        """Its links, outside of code."""
        prose = re.sub(r"`[^`\n]*`", "", _BLOCK.sub("", self.text))
        return _LINK.findall(prose)

    @property
    def anchors(self) -> set[str]:
        """The anchors of its headings on GitHub."""
        headings = re.findall(r"^#+ (.+)$", _BLOCK.sub("", self.text), re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


def read(path: Path) -> Page:
    """The page at `path`."""
    return Page(path, path.read_text(encoding="utf-8"))


def launcher_args(command: list[str]) -> list[str] | None:
    """The arguments of `command` for Gearshift; None if it starts another program."""
    program = [command[0].removeprefix(".venv/bin/").removesuffix("3"), *command[1:]]
    for start in _LAUNCHER:
        if program[: len(start)] == start:
            return program[len(start) :]
    return None
