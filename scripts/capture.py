"""Makes the pictures of docs/images: a command in a terminal as SVG, and pages of reports as PNG.

    python -m scripts.capture docs/images/run.svg -- python -m launcher --model language:small
    python -m scripts.capture docs/images/report-good.png

A report is of the run in RUNS that its name ends with; it takes a minute, and needs Chromium.
"""

from __future__ import annotations

import argparse
import io
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
COLUMNS = 100
WIDTH, HEIGHT, COLORS = 1100, 1300, 256
"""Of the pictures of reports; few colors keep them small."""
_CONTROL = re.compile(r"(\x1b\[\??[0-9;]*[A-Za-z]|\x1b\].*?(?:\x07|\x1b\\)|\r|\n)")
_TINY = "run --model language:tiny"
RUNS: Mapping[str, Sequence[str]] = {
    "good": ["run --model event_seg:tiny"],
    "diverged": [f"{_TINY} --lr 3000 --set optim.clip_norm=null"],
    "throttled": [f"{_TINY} --set limits.check_every_s=1 --set limits.ram=1"],
    "resumed": [f"{_TINY} --set stop.after=30", "resume run --set stop.after=null"],
    "comparison": ["compare --model event_seg --modes lite --steps 4"],
}
"""The commands of each kind of run."""


def final_screen(output: str) -> list[str]:
    """The lines of a terminal after `output`, which is written line by line, as rich does."""
    lines, row, is_fresh = [""], 0, False
    for part in _CONTROL.split(output):
        if part == "\r":
            is_fresh = True  # the next text replaces the line
        elif part == "\n":
            row, is_fresh = row + 1, False
            lines += [""] * (row == len(lines))
        elif up := re.fullmatch(r"\x1b\[(\d*)A", part):
            row = max(0, row - int(up[1] or 1))
        elif re.fullmatch(r"\x1b\[\d*K", part):
            lines[row] = ""
        elif part and (part.endswith("m") or not part.startswith("\x1b")):
            lines[row] = part if is_fresh else lines[row] + part
            is_fresh = False
    return lines


def output_of(command: Sequence[str]) -> str:
    """Run `command` in a terminal of its own, and give its output. Raises RuntimeError if it fails."""
    taken: list[bytes] = []

    def read(terminal: int) -> bytes:
        taken.append(os.read(terminal, 1 << 16))
        return taken[-1]

    variables = {"COLUMNS": str(COLUMNS), "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    words = ["env", *(f"{name}={value}" for name, value in variables.items()), *command]
    if code := os.waitstatus_to_exitcode(pty.spawn(words, read)):
        raise RuntimeError(f"{shlex.join(command)} ended with {code}")
    return b"".join(taken).decode("utf-8", "replace")


def terminal_picture(lines: Sequence[str], command: Sequence[str]) -> str:
    """The lines as an SVG of a terminal window, below the command."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), color_system="truecolor")
    console.print(Text.assemble(("$ ", "green"), (shlex.join(command), "bold")))
    for line in lines:
        console.print(Text.from_ansi(line), overflow="fold")
    return console.export_svg(title="gearshift", clear=False)


def capture_report(name: str, picture: Path) -> None:
    """Make the run `name`, some of which fail, and the picture of its page."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "run", "compare.html" if name == "comparison" else "report.html")
        for line in RUNS[name]:
            out = [] if line.startswith("resume") else ["--out", "run"]
            command = [sys.executable, "-m", "launcher", *line.split(), *out]
            subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
            tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            tab.goto(page.as_uri())
            tab.wait_for_timeout(1500)  # until the plots are drawn
            tab.screenshot(path=picture)
            browser.close()
    small = Image.open(picture).convert("RGB").quantize(COLORS, Image.Quantize.FASTOCTREE)
    small.save(picture, optimize=True)


def main() -> None:
    """Make one picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("picture", type=Path, help="NAME.svg, or report-KIND.png")
    parser.add_argument("command", nargs="*", help="of an SVG, after --")
    options = parser.parse_args()
    if options.picture.suffix == ".png":
        capture_report(options.picture.stem.rpartition("-")[2], options.picture)
    else:
        lines = "\n".join(final_screen(output_of(options.command))).strip("\n").split("\n")
        options.picture.write_text(terminal_picture(lines, options.command), encoding="utf-8")


if __name__ == "__main__":
    main()
