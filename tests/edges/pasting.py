"""Lines to paste: what the program does once one is pasted."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from launcher.__main__ import main
from launcher.base.diagnostics import PROGRAM
from tests.runs.conftest import REQUESTS

ROOT = Path(__file__).parents[2]
PACKAGES = ("launcher", "models", "training", "engines", "slurm")
UNKNOWN = "§"
"""Stands for a value that is known only when the line is printed."""
SHELL = "mkdir chmod docker find hf iconv mv pip printf python rm sbatch sed timedatectl tr ulimit echo head"
"""Programs that lines begin with."""
_YAML = re.compile(r"[a-z_][a-z_0-9.]*: \S")
_REMOVE = re.compile(r"(?:leave out|remove) (?=--|§|[a-z_]+\.|it\b|one of them)")
_REPLACED = re.compile(
    r"error: (?:unknown|unexpected|model '\S+' does not exist|\S+ must precede|'\S+' is a section)"
)
"""Errors after which a line is typed instead of the words that they name."""
_BLOCK = re.compile(r"^(?:error|warning): .*\n(?:  .*\n?)*", re.MULTILINE)
_WORD = r"^  where +(?:(?:the )?command line:? |-)"
_JOIN = re.compile(r"\b(?:and|then|after)\b")
_EXPORT = re.compile(r"export ([A-Z_§]+)=(\S+)")
_COMMAND_LINE = re.compile(r"^(?:the )?command line:? (?:-- … )?")
_FIX = re.compile(r"^  fix +(.+(?:\n(?!  \w|error|warning).+)*)", re.MULTILINE)


def alternatives(fix):
    """The lines of a fix, which two spaces set apart from the words around them.

    `and` and `then` between two lines join them: both are typed, one after the other.
    """
    found, words = [], ""
    for part in map(str.strip, re.split(r"  +|\n", fix)):
        if not _is_line(part):
            words = part
        elif found and _JOIN.search(words):
            found[-1].append(part)
        else:
            found.append([part])
        if _REMOVE.match(part):
            words = part
    return found


def _is_line(part):
    first = part.partition(" ")[0]
    return (
        part.startswith(("--", "{", PROGRAM, "launcher.", UNKNOWN))
        or first in SHELL.split()
        or _EXPORT.match(part) is not None
        or _REMOVE.match(part) is not None
        or _YAML.match(part) is not None
    )


@cache
def texts():
    """Each text of the packages, with the file that has it; UNKNOWN for what is computed."""
    return frozenset(
        (str(path.relative_to(ROOT)), text)
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.expr) and (text := _text_of(node)) is not None
    )


def _text_of(node):
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(
            part.value
            if isinstance(part, ast.Constant)
            else PROGRAM
            if ast.unparse(part).strip("f'\"{}") == "PROGRAM"
            else UNKNOWN
            for part in node.values
        )
    return None


# ---- typing, and pasting -------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A command line that provokes a fix, and what its lines need."""

    typed: str
    files: Mapping[str, str | bytes | Callable[[Path], object]] = field(default_factory=dict)
    """Content, or what makes the file or folder at a path."""
    given: Mapping[str, str] = field(default_factory=dict)
    """What a person writes for each placeholder of the line."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Of the environment."""
    then: str = ""
    """Options after which the pasted command takes little time."""
    says: str = ""
    """Part of the fix, if the command line has several."""
    marks: tuple[pytest.MarkDecorator, ...] = ()


def parameters(cases):
    """The cases for pytest, named by what is typed."""
    return [pytest.param(case, id=case.typed[:60], marks=case.marks) for case in cases]


QUICK = (
    "--nproc 1 --max-steps 2 --batch-size 2 --set train.global_batch=2 --set train.preview=false "
    "--set schedule.warmup=0"
)
SLOW = (pytest.mark.slow,)
DATA = {"mine.jsonl": REQUESTS}
_temporary = TemporaryDirectory(prefix="gearshift-lines-")


def _trained():
    folder = Path(_temporary.name, "run")
    data = folder.with_suffix(".jsonl")
    if not folder.exists():
        data.write_text(REQUESTS)
        options = f"--model language:tiny --data {data} --out {folder} {QUICK}"
        assert main(options.split()) == 0
    return folder


def a_run(path):
    """A run of two steps that was trained."""
    shutil.copytree(_trained(), path, symlinks=True)


RUN = {"runs/mine": a_run}


def folder_of(**files):
    """A folder of text files; the last `_` of a name is a dot."""

    def make(path):
        path.mkdir()
        for name, text in files.items():
            (path / ".".join(name.rsplit("_", 1))).write_text(text)

    return make


def with_files(files, folder):
    """Write the files of a case."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(content):
            content(path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())


def provoked(case, folder, printed):
    """The block of the error of a command line, and its fix."""
    with_files(case.files, folder)
    printed()
    main(shlex.split(case.typed))
    text = printed()
    for block in _BLOCK.findall(text):
        fix = _FIX.search(block)
        if fix and case.says in fix[1]:
            return block, fix[1]
    raise AssertionError(f"no fix in:\n{''.join(_BLOCK.findall(text))}")


def paste(line, typed, block):
    """The command line after a line was pasted; what else it does is done: files, the shell."""
    if line.startswith(PROGRAM):
        argv = shlex.split(line)[3:]
        return argv if argv and not argv[0].startswith("--") else [*argv, "--dry-run"]
    if line.startswith("--"):
        if _REPLACED.match(block) and re.search(_WORD, block, re.MULTILINE):
            typed = _without(typed, "remove it", block)
        return with_options(typed, shlex.split(line))
    if line.startswith("{"):
        _write_item(line, block)
        return typed
    if _REMOVE.match(line):
        return _without(typed, line, block)
    if _YAML.match(line):
        _write_yaml(line, block)
    else:
        shell = line.replace("python ", f"{sys.executable} ", 1)
        done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    return ["--version"] if PROGRAM in line else typed


def with_options(typed, options):
    """A command line with options instead of those of the same name; at the end of ours."""
    words, passed = typed, []
    if "--" in typed:
        words, passed = typed[: typed.index("--")], typed[typed.index("--") :]
    values = []
    for option in options:
        if option.startswith("--"):
            values.append((option, []))
        else:
            values[-1][1].append(option)
    for flag, after in values:
        key = after[0].partition("=")[0] if flag == "--set" else None
        if flag != "--reset":  # of several parts
            words = _dropped(words, flag, key)
        words = [*words, flag, *after]
    return [*words, *passed]


def _dropped(words, flag, key=None):
    rest, skip = [], 0
    for index, word in enumerate(words):
        if skip:
            skip -= 1
            continue
        following = words[index + 1] if index + 1 < len(words) else "--"
        is_key = key is None or following.partition("=")[0] == key
        if word.partition("=")[0] == flag and is_key:
            skip = int("=" not in word and not following.startswith("--"))
        else:
            rest.append(word)
    return rest


def _without(typed, line, block):
    named = _REMOVE.sub("", line).split()[0].strip(",:")
    if named.startswith("--"):
        return _dropped(typed, named)
    where = re.search(r"^  where +(.*)$", block, re.MULTILINE)
    assert where
    if named in ("it", "one"):
        if file := re.search(r"([^ :]+\.\w+):(\d+)", where[1]):
            _replace_line(Path(file[1]), int(file[2]), "")
            return typed
        words = shlex.split(_COMMAND_LINE.sub("", where[1].partition(", and ")[0]))
        is_set = words[0] == "--set" and words[1:]
        rest = _dropped(typed, words[0], words[1].partition("=")[0] if is_set else None)
        return [word for word in rest if word != words[0]]
    return _dropped(typed, "--set", named)


def _write_yaml(line, block):
    """Put a line into the settings file, in the line that the error names."""
    where = re.search(r"^  where +([^ :]+):(\d+)", block, re.MULTILINE)
    if where:
        _replace_line(Path(where[1]), int(where[2]), line)
        return
    [path] = Path().glob("*.yaml")  # of a file to download: the place is its URL
    key, text = line.partition(":")[0], path.read_text()
    text = re.sub(rf"\n +{key}: .*", "", text)
    path.write_text(re.sub(r"(- )(url: \S+)", rf"\1{line}\n      \2", text))


def _write_item(line, block):
    """Put an item of a list into the settings file, instead of that with the same URL."""
    where = re.search(r"^  where +([^ :]+):", block, re.MULTILINE)
    assert where
    path, url = Path(where[1]), line[1:].split()[1].rstrip(",")
    path.write_text(re.sub(rf"- (.*{re.escape(url)}.*)", f"- {line}", path.read_text()))


def _replace_line(path, number, line):
    text = path.read_text().splitlines()
    before = text[number - 1]
    indent = re.match(r"[ -]*", before)
    assert indent
    text[number - 1] = indent[0] + line if line else ""
    path.write_text("\n".join(text) + "\n")


def check(case, folder, printed):
    """Provoke the fix, and run each of its lines from the same start; the number of lines."""
    block, fix = provoked(case, folder, printed)
    message, found = block.partition("\n")[0], alternatives(fix)
    for lines in found:
        argv = shlex.split(case.typed)
        for line in lines:
            for placeholder, value in case.given.items():
                line = re.sub(rf"\b{placeholder}\b", value, line)
            if variable := _EXPORT.fullmatch(line):
                os.environ[variable[1]] = variable[2]
                continue
            argv = paste(line, argv, block)
        argv += shlex.split(case.then)
        printed()
        code = main(argv)
        again = printed()
        errors = "".join(block for block in _BLOCK.findall(again) if block.startswith("error"))
        assert message not in again, f"{line}: {shlex.join(argv)}\n{block}"
        assert code == 0, f"{line}: {shlex.join(argv)}\n{errors}"
    return len(found)
