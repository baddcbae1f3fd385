"""The password of a URL that was typed where a path belongs is not printed, and nothing is written."""

import pytest

from launcher.__main__ import main

URL = "https://ann:hidden@host.invalid/x"
START = ["--model", "language:tiny", "--dry-run"]


@pytest.mark.parametrize(
    "arguments",
    [
        *([*START, "--out", URL], [*START, "--data", URL], [*START, "--config", URL]),
        *([*START, "--mode", URL], [*START, "--set", f"model.pretrained={URL}"]),
        *([*START, "--set", f"{key}={URL}"] for key in ("download.folder", "feature_cache.folder")),
        *(["evaluate", URL], ["resume", URL], ["report", URL], ["watch", URL]),
        *(["new-task", "guarded_task", "--out", URL], ["compare", "--out", URL], ["plan", "--data", URL]),
        *(["data", "fetch", "--out", URL, "--set", "download.files=[file:///etc/hostname]"],),
    ],
)
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_password_is_not_printed(arguments, form, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, *form]) == 2
    text = "".join(capfd.readouterr())
    assert "hidden" not in text and "***" in text
    assert list(tmp_path.iterdir()) == []
