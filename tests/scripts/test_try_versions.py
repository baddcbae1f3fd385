"""Versions that were tried: the oldest and the newest ones that pyproject.toml allows."""

from __future__ import annotations

from scripts.try_versions import PYTHONS, ROOT, TORCHES, Row, table


def test_the_oldest_and_the_newest_supported_versions_are_tried():
    text = (ROOT / "pyproject.toml").read_text()
    oldest, newest = (PYTHONS[0], PYTHONS[-1])
    assert f'requires-python = ">={oldest},<3.{int(newest[2:]) + 1}"' in text
    old, new = (torch.split(".")[:2] for torch in TORCHES)
    assert f'"torch>={".".join(old)},<2.{int(new[1]) + 1}"' in text


def test_what_fails_and_what_was_not_run_is_said():
    (row,) = table([Row("3.10.1", "2.6.0", {"install": None, "local": None, "ddp": "no"})]).splitlines()[2:]
    assert row.startswith("| 3.10.1 | 2.6.0 | works | not run | `local` works; `ddp` fails: no; `fsdp`, ")
