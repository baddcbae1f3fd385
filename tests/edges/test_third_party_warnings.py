"""Warnings of libraries are in log.txt, once; those of a custom task are on the console."""

import logging
import sys
import sysconfig
import warnings
from pathlib import Path

import pytest

from gearshift.launcher.base import environment

LIBRARY = str(Path(sysconfig.get_path("purelib")) / "torch" / "nn" / "x.py")
HERE = str(Path(environment.__file__).parents[2])


@pytest.fixture(autouse=True)
def always():
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        yield


def log(name, path, level, text):
    logger = logging.getLogger(name)
    logger.handle(logger.makeRecord(name, level, path, 1, text, (), None))


def test_log_records_of_a_library_are_written_once_and_not_printed(capsys, tmp_path):
    written = []
    handler = logging.StreamHandler(sys.stderr)  # as transformers and DeepSpeed have
    logging.getLogger("library").addHandler(handler)
    try:
        with environment.logged(written.append):
            for _ in range(2):
                log("library", LIBRARY, logging.WARNING, "too long")
            log("library", LIBRARY, logging.INFO, "loading")
            log("library", str(tmp_path / "my_task.py"), logging.WARNING, "mine")
            log("library", f"{HERE}/engines/fsdp.py", logging.WARNING, "ours")
    finally:
        logging.getLogger("library").removeHandler(handler)
    assert written == ["warning of a library: library: too long"]
    assert capsys.readouterr().err == "mine\nours\n"
