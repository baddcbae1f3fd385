"""The pictures of reports in the docs can be made again."""

import shutil

import pytest

from scripts.capture_reports import COLORS, WIDTH, capture

Image = pytest.importorskip("PIL.Image")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
def test_a_run_that_fails_has_a_picture_of_its_report(tmp_path):
    capture("diverged", tmp_path, tmp_path / "picture.png")
    picture = Image.open(tmp_path / "picture.png")
    assert picture.width == WIDTH
    assert 8 < len(picture.getcolors()) <= COLORS
