"""A fork starts with the files of the source run."""

from launcher.run.execute import copy_run
from launcher.run_folder import run_folder
from tests.launcher.given import resolved
from tests.launcher.runs import ended, trained


def test_all_files_are_copied_except_those_the_new_run_creates(tmp_path):
    old = ended(trained(tmp_path / "old", resolved(), 10), "stopped", 10)
    for name in ("metrics.jsonl", "events.jsonl", "split.json", "report.html", ".lock"):
        (old / name).write_text(name)
    (old / "log.txt").write_text("it began\n")
    for name in ("tokenizer/merges.txt", "export-hf/config.json", "predictions/x.json"):
        (old / name).parent.mkdir()
        (old / name).touch()
    (old / "notes").symlink_to("/nowhere")
    before = sorted(old.rglob("*"))

    forked = run_folder.create(
        resolved(lr="3e-4"), tmp_path / "new", "", lambda folder: copy_run(old, folder)
    )

    assert sorted(str(path.relative_to(forked.path)) for path in forked.path.rglob("*")) == [
        "events.jsonl",
        "log.txt",
        "metrics.jsonl",
        "notes",
        "origins.json",
        "settings.yaml",
        "split.json",
        "tokenizer",
        "tokenizer/merges.txt",
    ]
    assert (forked.path / "metrics.jsonl").read_text() == "metrics.jsonl"
    assert (forked.path / "log.txt").read_text() == "it began\n"
    assert "lr: 3e-4" in (forked.path / "settings.yaml").read_text()
    assert (forked.path / "notes").is_symlink()
    assert sorted(old.rglob("*")) == before
