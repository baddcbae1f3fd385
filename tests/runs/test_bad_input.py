"""Bad inputs over all commands: one clear error each, exit code 2, nothing written, no wait."""

import os
import resource
import shlex
import struct
import zlib

import h5py
import numpy as np
import pytest

from gearshift.launcher.__main__ import main
from tests.runs.conftest import REQUESTS, Program

LINES = {
    "--model": r'language:../tiny | os:path | "language; rm -rf /" | gearshift.launcher.api:Run | ""',
    "--mode": "fast,lite",
    "--engine": "ddp,fsdp",
    "--nproc": "1.5 | 99999999999999999999",
    "--epochs": "0 | inf",
    "--max-steps": "1e400",
    "--batch-size": "99999999999999999999999",
    "--seq-len": "7",
    "--lr": "inf",
    "--seed": "1.5",
    "--precision": "fp7",
    "--set": "=3 | optim={} | optim.lr=[1,2] | optim.betas=[0.9,0.99,0.999] | train.seed=true | "
    'a.b.c.d.e.f=1 | "optim.lr =1=2" | save.every="3 weeks" | limits.critical.ram=170 | '
    'memory.activation_checkpointing="every 0" | stop.at="val_loss" | schedule.warmup=120% | '
    "data.fraction=2 | eval.share=0.9",
    "--config": ". | list.yaml | twice.yaml | tag.yaml | anchor.yaml | tabs.yaml | nul.yaml | "
    'bom.json | zip.yaml | empty-name.yaml --config ""',
    "--engine zero2 --ds-config": "list.json | unknown.json",
    "--engine ddp --ds-config": "good.json",
    "--model language:tiny --data": 'fifo | empty | zeros.txt | broken.jsonl | nested.jsonl | quote.csv | ""',
    "--data": "huge.h5 --model event_seg | pages --model doc_translation | "
    "embedded:python --model abr | embedded:python --continuous-learning",
    "--mode staged --model abr --from": "missing",
    "--resume": "mine.jsonl",
    "--out": "mine.jsonl",
    "--track": "wandb:a/b/c/d",
    "": "--download-data | --stage encoder | --reset optimizer | --quiet | --help=3 | -x | --- | "
    "--version now | nothing",
    "run": "run",
    "resume": " | -1",
    "explain": "optim.lr extra",
    "list": "everything | models modes",
    "verify": " | .",
    "compare": "--modes , | --model nothing",
    "submit": "--nodes 0 | --dry-run --mode fsat",
    "export": " | . --format onnx | missing --format",
    "predict": " | . | mine.jsonl --input text | missing --temperature hot | missing --top-p 2",
    "track": " | .",
    "new-task": ' | class | ../up | "my task"',
    "data": " | check | fetch | fetch extra",
    "data check": "fifo | huge.h5 | bomb | impossible.csv | mine.jsonl --model nothing",
    "completion": "",
}
"""Arguments that each command or option refuses, with a | between them."""

HEADS = "patient_id,intensity,hear_loss,age,rate,fmp,v_latency,v_amplitude,"


@pytest.fixture
def bad(tmp_path):
    """A working directory with the files that the lines name."""
    texts = {
        "mine.jsonl": REQUESTS,
        "list.yaml": "- 1\n- 2\n",
        "list.json": "[1]",
        "good.json": "{}",
        "unknown.json": '{"train_bach_size": 3}',
        "twice.yaml": "optim:\n  lr: 1\noptim:\n  lr: 2\n",
        "tag.yaml": "mode: !!python/object/apply:os.system ['touch owned']\n",
        "anchor.yaml": "a: &a [*a]\n",
        "tabs.yaml": "optim:\n\tlr: 1\n",
        "nul.yaml": "mode: fa\0st\n",
        "bom.json": "\ufeff{",
        "zip.yaml": "PK\3\4",
        "zeros.txt": "\0" * 1000,
        "broken.jsonl": '{"prompt": "a", "response": \n' * 20,
        "nested.jsonl": "[" * 100_000 + "\n",
        "quote.csv": 'prompt,response\n"a,b\n' * 20,
        "impossible.csv": HEADS
        + ",".join(map(str, range(1, 201)))
        + "\n"
        + f"1,1e30,0,40,11,3,5,0.3,{',0.1' * 200}\n".replace(",,", ",") * 30,
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "fifo")
    _claiming_hdf5(tmp_path / "huge.h5")
    for folder in ("pages", "bomb"):
        _claiming_page(tmp_path / folder)
    return Program(tmp_path)


def _claiming_hdf5(path):
    with h5py.File(path, "w") as file:
        group = file.create_group("davis/left")
        group.create_dataset("events", (10**12, 4), np.float64, chunks=(1000, 4))
        group.create_dataset("image_raw", (10**9, 260, 346), np.uint8, chunks=(1, 260, 346))
        for name in ("image_raw_ts", "image_raw_event_inds"):
            group.create_dataset(name, (10**9,), np.float64, chunks=(1000,))


def _claiming_page(folder):
    """A folder in the DoTA layout with a page of 30 gigapixels."""
    (folder / "imgs").mkdir(parents=True)
    (folder / "zh_mmd").mkdir()
    head = struct.pack(">IIBBBBB", 200_000, 150_000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    png = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    (folder / "imgs" / "a_1.png").write_bytes(b"\x89PNG\r\n\x1a\n" + png)
    (folder / "zh_mmd" / "a_1.mmd").write_text("text")
    lists = '{"train_name_list": ["a_1"], "valid_name_list": [], "test_name_list": []}'
    (folder / "split_dataset.json").write_text(lists)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("command", LINES)
def test_a_bad_input_is_one_error_and_nothing_is_written(command, bad, monkeypatch, capfd):
    monkeypatch.chdir(bad.folder)
    before = bad.files()
    for arguments in LINES[command].split("|"):
        line = f"{command} {arguments}"
        code = main(shlex.split(line))
        error = capfd.readouterr().err
        assert code in (1, 2), line + error
        assert error.startswith(("error: ", "warning: ")), line + error
        assert "error: " in error, line + error
        assert "Traceback" not in error and "Warning" not in error, line + error
        assert bad.files() == before, line


def test_a_run_folder_or_working_directory_that_may_not_be_written_is_refused(
    program, bound_by_permissions
):
    (program.folder / "mine").mkdir(mode=0o500)
    done = program("--out", "mine/new", prefix=bound_by_permissions)
    assert done.returncode == 2, done.stderr
    assert "mine/new" in done.stderr and "is not writable" in done.stderr
    program.folder.chmod(0o500)
    done = program("--lite", prefix=bound_by_permissions)
    program.folder.chmod(0o700)
    assert done.returncode == 2, done.stderr
    assert "is not writable" in done.stderr
    assert program.files() == ["mine"]


def test_a_disk_that_is_full_leaves_no_run_folder(program):
    def no_space():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    done = program("--lite", preexec_fn=no_space)
    assert done.returncode == 2, done.stderr
    assert "cannot write the run folder" in done.stderr
    assert "Traceback" not in done.stderr
    assert program.files() == []
