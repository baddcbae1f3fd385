"""Pages in headless Chromium, for tests that see what a reader sees."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
_TICKS = """(() => {
  const texts = [...document.querySelector("figure svg").querySelectorAll("text.x")];
  return [texts[0], texts.at(-1)].map((text) => Number(text.textContent));
})()"""


@dataclass
class Opened:
    """An open page, and what it did."""

    page: Any
    errors: list[str] = field(default_factory=list)
    """Errors and warnings in its console, and exceptions."""
    requests: list[str] = field(default_factory=list)

    def legend(self, number):
        """The names and values above a plot."""
        return str(self.page.locator(f"figure[data-plot='{number}'] .key").inner_text())

    def ticks(self):
        """The first and the last number of the x axis."""
        low, high = self.page.evaluate(f"() => {_TICKS}")
        return low, high

    def other_ticks(self, before):
        """Those numbers once they are not those of before."""
        self.page.wait_for_function(f"([low]) => {_TICKS}[0] !== low", arg=list(before))
        return self.ticks()


@contextmanager
def browser():
    """Headless Chromium with a fresh profile; skips the test where there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield opened
        opened.close()


def open_page(opened, path):
    """The page at `path`, once its plots are drawn."""
    page = opened.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
    found = Opened(page)
    page.on("console", lambda m: found.errors.append(m.text) if m.type != "log" else None)
    page.on("pageerror", lambda error: found.errors.append(str(error)))
    page.on("request", lambda request: found.requests.append(request.url))
    page.goto(path.absolute().as_uri())
    page.wait_for_selector("figure svg text", state="attached")
    return found
