"""A run with downloaded data, from the command line to its result."""

import io
import json
import zipfile

import pytest

from tests.launcher.download.server import Response, serving
from tests.runs.conftest import REQUESTS


@pytest.mark.slow
def test_a_run_downloads_its_data_and_trains_on_it(program):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("requests/mine.jsonl", REQUESTS)
    with serving() as server:
        url = server.on("/set.zip", Response(body=buffer.getvalue())).replace("//", "//ann:hidden@")
        (program.folder / "mine.yaml").write_text(f"download:\n  files: ['{url}']\n")
        arguments = ("--model", "language:tiny", "--download-data", "--config", "mine.yaml")
        done = program(*arguments, "--max-steps", "2", "--out", "run")
        assert done.returncode == 0, done.stderr
    assert "downloads/set: downloading http://***@127.0.0.1" in done.stdout
    assert "source downloads/set" in done.stdout
    assert json.loads((program.folder / "run" / "result.json").read_text())["steps"] == 2
    assert len(server.requests) == 1
    for path in program.folder.rglob("*"):
        if path.is_file() and path.name != "mine.yaml":
            assert b"hidden" not in path.read_bytes(), path
