"""Each of the commonest faults is provoked by a test, and its message is that of the table."""

from __future__ import annotations

import ast
import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from launcher.run.faults import FAULTS, UNKNOWN, advice, recognized
from training.resources.oom import OutOfMemory
from training.storage import StorageError

TESTS = Path(__file__).parents[2]
PROVOKED = {
    "nonfinite_first": "runs/test_health.py::test_nan_from_the_first_step",
    "nonfinite_later": "runs/test_health.py::test_nan_after_some_steps",
    "nonfinite_evaluation": "edges/test_nonfinite_evaluations.py::"
    "test_console_files_and_report_name_it_and_the_fix_works",
    "not_falling": "runs/test_health.py::test_a_loss_that_does_not_fall",
    "lr_too_high": "runs/test_health.py::test_a_learning_rate_that_is_too_high",
    "overfitting": "runs/test_health.py::test_overfitting",
    "out_of_memory": "training/resources/test_oom.py::test_one_sample_that_does_not_fit_fails",
    "starved": "runs/test_health.py::test_a_slow_data_set",
    "shared_memory": "launcher/run/test_fixes.py::"
    "test_a_failure_ends_with_its_cause_and_the_next_command",
    "dead_rank": "launcher/run/test_supervisor.py::"
    "test_a_killed_rank_is_reported_with_its_signal_and_last_output",
    "timeout": "launcher/run/test_supervisor.py::"
    "test_a_frozen_rank_is_named_with_its_stack_and_not_the_one_that_noticed",
    "port_in_use": "engines/test_rendezvous.py::test_a_port_in_use_is_named_if_it_is_the_only_one",
    "permission": "launcher/run/test_fixes.py::"
    "test_a_failure_ends_with_its_cause_and_the_next_command",
    "disk_full": "runs/test_health.py::test_a_full_disk",
    "quota": "launcher/run/test_fixes.py::test_a_failure_ends_with_its_cause_and_the_next_command",
    "compiling": "training/test_health.py::test_compiling_is_named_if_it_does_not_pay",
    "one_class": "runs/test_health.py::test_labels_of_one_class",
    "tokenizer": "models/language/test_pretrained.py::"
    "test_a_tokenizer_with_more_tokens_than_embeddings_is_refused",
    "resume_refused": "launcher/run_folder/test_resume_rules.py::"
    "test_a_change_that_needs_a_reset_is_refused_with_the_option",
    "tracker": "training/trackers/test_wandb_faults.py::test_an_unreachable_server",
    "clock_skew": "training/test_health.py::test_a_clock_that_differs_is_named_on_every_rank",
}


@dataclass
class Sizes:
    micro_batch: int = 8
    global_batch: int = 8
    smaller: int | None = 4


def full(number: int) -> str:
    return str(StorageError(Path("runs/x/log.txt"), OSError(number, os.strerror(number))))


MESSAGES = {
    "out_of_memory": str(OutOfMemory(MemoryError("4 GiB"), Sizes())),
    "permission": full(errno.EACCES),
    "disk_full": full(errno.ENOSPC),
    "quota": full(errno.EDQUOT),
    "resume_refused": "schedule.warmup 9 differs from 5, used by runs/x until step 10",
}
"""Messages that other modules make; tests beside those hold theirs to the table, too."""


def has_seen(name: str, text: str) -> bool:
    """Whether `text` is what the table says is seen, with any values."""
    return bool(re.search(re.escape(FAULTS[name].seen_by_all).replace(UNKNOWN, ".+"), text))


def test_there_are_twenty_one_faults_and_each_is_provoked():
    assert len(FAULTS) == 21
    assert PROVOKED.keys() == FAULTS.keys()


@pytest.mark.parametrize("name", PROVOKED)
def test_a_fault_has_its_test(name):
    file, _, test = PROVOKED[name].partition("::")
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    assert test in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("name", MESSAGES)
def test_the_message_is_that_of_the_table(name):
    assert has_seen(name, MESSAGES[name])


def test_a_finding_has_all_its_values():
    _, facts = advice("clock_skew", {"host": "node7", "seconds": "42"}, {"again": "run"})
    assert not re.search(r"[{}]", "".join(facts.values()))
    assert has_seen("clock_skew", facts["seen"])
    assert facts["fix"] == "timedatectl set-ntp true  on node7"


def test_a_full_shared_memory_is_not_taken_for_a_full_disk():
    text = "unable to write to file </torch_77_123_0>: No space left on device (28)"
    assert recognized(text) == "shared_memory"
    assert recognized("something else") is None
