"""The site of docs/ has every page, no broken link, and asks no other host."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
import yaml

from tests.docs.pages import ROOT

CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
MOST_PAGES = 30
LOADED = re.compile(
    r"<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=[\"']?((?:https?:)?//[^\"'> ]+)"
)
needs_mkdocs = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("mkdocs", "material", "mkdocstrings")),
    reason="needs pip install -e '.[docs]'",
)


def listed(nav: Any) -> Iterator[str]:
    """The pages of a navigation, in order."""
    for entry in nav:
        if isinstance(entry, str):
            yield entry
        else:
            for inner in entry.values():
                yield from listed(inner)


def test_the_navigation_has_every_page_once_and_they_are_few():
    pages = list(listed(CONFIG["nav"]))
    assert sorted(pages) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))
    assert len(pages) <= MOST_PAGES


@pytest.mark.slow
@needs_mkdocs
def test_the_site_asks_no_other_host_and_its_reference_has_the_public_names(tmp_path):
    site = tmp_path / "site"
    build = ["-m", "mkdocs", "build", "--strict", "-f", str(ROOT / "mkdocs.yml"), "-d", str(site)]
    subprocess.run([sys.executable, *build], cwd=ROOT, check=True)
    assert LOADED.findall('<script src="https://cdn.example.org/a.js">')
    assert not LOADED.findall('<a href="https://example.org">')
    pages = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    assert len(pages) > len(list(listed(CONFIG["nav"])))  # and 404.html
    loaded = {path.name: found for path, text in pages.items() if (found := LOADED.findall(text))}
    assert loaded == {}
    reference = pages[site / "python.html"]
    anchors = set(re.findall(r'id="(gearshift\.[\w.]+)"', reference))
    methods = ("best", "model", "predict", "export", "evaluate")
    assert anchors >= {
        "gearshift.train",
        "gearshift.open_run",
        "gearshift.engines.base.Engine.step",
    }
    assert anchors >= {
        "gearshift.models.base.Task.loss",
        "gearshift.models.custom.CustomTask.measure",
    }
    assert anchors >= {f"gearshift.launcher.api.Run.{name}" for name in methods}
    assert [name for name in anchors if "._" in name] == []
