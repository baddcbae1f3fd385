"""Small programs that replace Slurm's own and record their calls."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

_PROGRAM = """\
#!{python}
import json, os, pathlib, sys
folder = pathlib.Path({folder!r})
name = pathlib.Path(sys.argv[0]).name
text = "" if sys.stdin.isatty() or name != "sbatch" else sys.stdin.read()
call = dict(name=name, args=sys.argv[1:], environment=dict(os.environ), text=text)
with (folder / "calls.jsonl").open("a") as file:
    file.write(json.dumps(call) + "\\n")
responses = folder / f"{{name}}.json"
responses = json.loads(responses.read_text()) if responses.exists() else []
number = sum(json.loads(line)["name"] == name for line in (folder / "calls.jsonl").open())
code, out, err = responses[min(number, len(responses)) - 1] if responses else (0, "", "")
print(out, end="")
print(err, end="", file=sys.stderr)
sys.exit(code)
"""


@dataclass(frozen=True)
class Programs:
    """A folder in PATH with such programs."""

    folder: Path

    def add(self, name, *responses):
        """A program that gives these responses in turn and repeats the last one.

        Each is an exit code, the text on stdout and the text on stderr.
        """
        path = self.folder / name
        path.write_text(_PROGRAM.format(python=sys.executable, folder=str(self.folder)))
        path.chmod(0o755)
        (self.folder / f"{name}.json").write_text(json.dumps(responses))

    def calls(self, name):
        """The calls of a program: arguments, environment, standard input."""
        path = self.folder / "calls.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [call for line in lines if (call := json.loads(line))["name"] == name]


def programs_in_path(folder, monkeypatch):
    """Create the folder, and put it at the front of PATH."""
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return Programs(folder)
