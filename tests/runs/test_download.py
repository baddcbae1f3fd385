"""A run with downloaded data, from the command line to its result."""

import io
import json
import zipfile

import pytest

from tests.launcher.download.server import Response, serving

QUICK = (
    *("--set", "continual.quiet_s=1", "--set", "continual.settle_s=0.2"),
    *("--set", "continual.check_every_s=0.2"),
)


@pytest.mark.slow
def test_the_whole_pipeline_works_from_an_empty_directory(program):
    """The original's run_resource_efficient_training.py with its three options."""
    rows = [{"instruction": f"ask {i}", "input": "", "output": f"answer {i}"} for i in range(40)]
    text = "\n".join(map(json.dumps, rows))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("rows.jsonl", text)
    with serving() as server:
        url = server.on("/rows.zip", Response(body=buffer.getvalue()))
        url = url.replace("//", "//ann:k3pt-s4fe@")
        (program.folder / "mine.yaml").write_text(f"download:\n  files: ['{url}']\n")
        options = ("--resource-efficient", "--download-data", "--continuous-learning")
        more = ("--model", "language:tiny", "--config", "mine.yaml", "--max-steps", "2", *QUICK)
        done = program(*options, *more, "--out", "run")
        assert done.returncode == 0, done.stderr
        assert "downloads/rows: downloading http://***@127.0.0.1" in done.stdout
        watched = program.folder / "downloads/rows"
        assert (watched / "rows.jsonl").read_text() == text
        (watched / "new.jsonl").write_text(text.replace("ask", "question"))
        done = program("resume", "run", *QUICK)
        assert done.returncode == 0, done.stderr
    assert "experience  1 trained: val_loss on old data" in done.stdout
    assert json.loads((program.folder / "run" / "result.json").read_text())["steps"] > 2
    assert len(server.requests) == 1
    for path in program.folder.rglob("*"):
        if path.is_file() and path.name != "mine.yaml":
            assert b"k3pt-s4fe" not in path.read_bytes(), path
