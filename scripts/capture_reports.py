"""Makes runs of five kinds and saves pictures of their reports, as in docs/tracking.md.

    python -m scripts.capture_reports docs/images

Takes a few minutes, and needs Chromium.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
WIDTH, HEIGHT = 1100, 1300
COLORS = 256
"""Of the pictures, whose size they keep small."""
_TINY = ("--model", "language:tiny")
RUNS: Mapping[str, Sequence[Sequence[str]]] = {
    "good": [["run", "--model", "event_seg:tiny"]],
    "diverged": [["run", *_TINY, "--lr", "3000", "--set", "optim.clip_norm=null"]],
    "throttled": [
        [
            *("run", *_TINY, "--max-steps", "1200", "--set", "eval.every=400"),
            *("--set", "limits.check_every_s=1"),
        ]
    ],
    "resumed": [["run", *_TINY, "--set", "stop.after=30"], ["resume", "--set", "stop.after=null"]],
    "comparison": [["compare", "--model", "event_seg", "--modes", "lite", "--steps", "4"]],
}
"""The commands of each run; they get a folder."""
ROOM = 8
"""Percent of main memory between its use and the limit of the throttled run."""
OTHER_PROGRAM = """
import sys, time
time.sleep(15)
taken = b"x" * int(sys.argv[1])
time.sleep(10)
"""
"""Takes so many bytes for a while, beside the throttled run."""


@contextmanager
def _memory_taken(takes: bool) -> Iterator[Sequence[str]]:
    """Another program that takes memory for a while; a limit that only both together exceed."""
    if not takes:
        yield ()
        return
    memory = psutil.virtual_memory()
    size = memory.total * 2 * ROOM // 100
    with subprocess.Popen([sys.executable, "-c", OTHER_PROGRAM, str(size)]) as other:
        yield ("--set", f"limits.ram={memory.percent + ROOM:.0f}")
        other.terminate()


def capture(name: str, working: Path, picture: Path) -> None:
    """Make the run `name` in the folder `working`, and the picture. Raises SystemExit."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with _memory_taken(name == "throttled") as limit:
        for words in RUNS[name]:
            place = [name] if words[0] == "resume" else ["--out", name]
            line = [sys.executable, "-m", "launcher", words[0], *place, *words[1:], *limit]
            subprocess.run(line, cwd=working, env=environment, check=False)  # some fail
    page = working / name / ("compare.html" if name == "comparison" else "report.html")
    if not page.exists():
        raise SystemExit(f"{name}: no {page}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        tab.goto(page.as_uri())
        tab.wait_for_timeout(1500)  # until the plots are drawn
        tab.screenshot(path=picture)
        browser.close()
    Image.open(picture).convert("RGB").quantize(COLORS, Image.Quantize.FASTOCTREE).save(
        picture, optimize=True
    )


def main() -> None:
    """Capture all kinds, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="of the pictures")
    parser.add_argument("names", nargs="*", default=list(RUNS), help=", ".join(RUNS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in options.names:
            capture(name, Path(folder), options.folder / f"report-{name}.png")


if __name__ == "__main__":
    main()
