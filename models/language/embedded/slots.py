"""What the blanks of a command are filled with: how it is said, and how it is written."""

from __future__ import annotations

Value = tuple[str, str]
"""Said, written."""


def _same(words: str) -> list[Value]:
    return [(word, word) for word in words.split()]


def _pairs(*values: str) -> list[Value]:
    """Values as "said=written"."""
    return [(said, written) for said, _, written in (v.partition("=") for v in values)]


_FILES = _same("notes.txt app.log main.py todo.md data.csv run.sh users.json index.html")
_FOLDERS = _same("/var/log /tmp /etc /home ~/docs ~/music src tests build")
_NUMBERS = [
    *_pairs("two=2", "three=3", "five=5", "ten=10", "fifty=50", "a hundred=100"),
    *_same("4 15 25 40 60"),
    # Nobody can know how many a few are.
    *_pairs("a few=3", "a few=5", "a few=10", "some=20"),
]

SLOTS: dict[str, list[Value]] = {
    "file": _FILES,
    "other": _FILES,
    "dir": _FOLDERS,
    "target": _FOLDERS,
    "word": _same("error warning main import user failed token login"),
    "new": _same("notice start done export admin key total delay"),
    "count": _NUMBERS,
    "pattern": _pairs(
        "python files=*.py", "text files=*.txt", "logs=*.log", "images=*.png", "tables=*.csv",
        "web pages=*.html", "archives=*.gz", "archives=*.zip", "music=*.mp3", "music=*.flac",
    ),
    "order": _pairs(
        "by size=-S", "by time=-t", "in reverse=-r", "by extension=-X", "with details=-l",
        "with hidden ones=-a", "one a line=-1", "with sizes=-s",
    ),
    "large": _pairs(
        "10 megabytes=10M", "100 megabytes=100M", "500 megabytes=500M", "a gigabyte=1G",
        "ten gigabytes=10G", "900 kilobytes=900k", "a lot=50M", "a lot=5G",
    ),
    "days": _pairs(
        "today=1", "in two days=2", "in three days=3", "this week=7", "in two weeks=14",
        "this month=30", "recently=1", "recently=3", "recently=7", "this year=365",
    ),
    "unit": _pairs("lines=-l", "words=-w", "bytes=-c", "characters=-m"),
    "right": _pairs(
        "executable=+x", "readable for all=a+r", "read only=444", "private=600",
        "writable for the group=g+w", "unwritable for others=o-w", "open to all=777",
    ),
    "user": _same("anna ben carla david root guest postgres oscar"),
    "group": _same("docker sudo video audio staff games"),
    "press": _pairs("gzip=z", "bzip2=j", "xz=J", "small=J", "small=j"),
    "name": _same("alpha release photos site backup july shop blog"),
    "force": _pairs("at once=-f", "and ask first=-i", "and tell=-v"),
    "style": _pairs("side by side=-y", "in brief=-q", "unified=-u", "without blanks=-w"),
    "depth": _pairs("one level=1", "two levels=2", "three levels=3", "four levels=4"),
    "scale": _pairs("in human units=-h", "in kilobytes=-k", "with inodes=-i", "with types=-T"),
    "signal": _pairs("politely=TERM", "by force=KILL", "to reload=HUP", "for a pause=STOP"),
    "pid": _same("311 402 517 628 733 849 950 1024 2048 3001"),
    "process": _same("nginx python node java redis chrome bash sshd"),
    "by": _pairs("cpu=-%cpu", "memory=-%mem", "start=start_time", "name=comm"),
    "port": _same(
        "22 25 53 80 110 443 631 993 2049 3000 3306 5432 5900 6379 7000 8000 8080 8443 9000 9090"
    ),
    "action": _same("start stop restart enable disable reload mask"),
    "service": _same("nginx docker ssh cron mysql redis cups ufw"),
    "host": _same("web1 web2 db1 mail nas lab gate node7"),
    "kind": _pairs("feature=feature", "fix=fix", "bug fix=fix", "hotfix=hotfix", "docs=docs"),
    "branch": _same("main dev stable next login search api tests"),
    "how": _pairs("quietly=-q", "without commit=--no-commit", "as one commit=--squash"),
    "package": _same("numpy torch flask scipy pandas rich pytest click"),
    "version": _same("1.0 1.2 2.0 2.1 3.4 0.9 4.0 5.1"),
    "hour": _pairs("noon=12", "midnight=0", "six=6", "eight=8", "nine=9", "eleven=11",
                   "night=2", "night=3", "night=4"),
    "day": _pairs("Monday=mon", "Tuesday=tue", "Friday=fri", "Sunday=sun", "Saturday=sat",
                  "today=today", "tomorrow=tomorrow"),
    "level": _pairs("low=10", "very low=19", "high=-5", "very high=-20", "normal=0"),
    "time": _pairs(
        "a minute=60", "ten seconds=10", "half a minute=30", "an hour=3600", "two minutes=120",
        "a while=20", "a while=90", "a while=300",
    ),
}  # fmt: skip
"""What each slot may hold. The same words with two meanings make a request ambiguous by design."""
