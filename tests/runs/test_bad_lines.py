"""Bad inputs over all commands: one clear error each, nothing written, no wait."""

from __future__ import annotations

import os
import shlex
import struct
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from launcher.__main__ import main
from tests.runs.conftest import REQUESTS, Program

LINES = r"""
--model ""
--model language:../tiny
--model os:path
--model "language; rm -rf /"
--model launcher.api:Run
--mode fast,lite
--engine ddp,fsdp
--nproc 1.5
--nproc 99999999999999999999
--epochs 0
--epochs inf
--max-steps 1e400
--batch-size 99999999999999999999999
--seq-len 7
--lr inf
--seed 1.5
--precision fp7
--set =3
--set optim={}
--set optim.lr=[1,2]
--set optim.betas=[0.9,0.99,0.999]
--set train.seed=true
--set a.b.c.d.e.f=1
--set "optim.lr =1=2"
--set save.every="3 weeks"
--set limits.critical.ram=170
--set memory.activation_checkpointing="every 0"
--set stop.at="val_loss"
--set schedule.warmup=120%
--set data.fraction=2
--set eval.share=0.9
--set model.size=tiny --model language:small
--config .
--config empty-name.yaml --config ""
--config list.yaml
--config twice.yaml
--config tag.yaml
--config anchor.yaml
--config tabs.yaml
--config nul.yaml
--config bom.json
--config zip.yaml
--ds-config list.json --engine zero2
--ds-config unknown.json --engine zero2
--ds-config good.json --engine ddp
--data ""
--data fifo --model language:tiny
--data empty --model language:tiny
--data zeros.txt --model language:tiny
--data broken.jsonl --model language:tiny
--data nested.jsonl --model language:tiny
--data quote.csv --model language:tiny
--data huge.h5 --model event_seg
--data pages --model doc_translation
--data embedded:python --model abr
--download-data
--continuous-learning --data embedded:python
--stage encoder
--from missing --mode staged --model abr
--resume mine.jsonl
--reset optimizer
--out mine.jsonl
--track wandb:a/b/c/d
--quiet
run run
resume
resume -1
explain optim.lr extra
list everything
list models modes
verify
verify .
compare --modes ,
compare --model nothing
submit --nodes 0
submit --dry-run --mode fsat
export
export . --format onnx
export missing --format
predict
predict .
predict mine.jsonl --input text
predict missing --temperature hot
predict missing --top-p 2
track
track .
new-task
new-task class
new-task ../up
new-task "my task"
data
data check
data check fifo
data check huge.h5
data check bomb
data check impossible.csv
data check mine.jsonl --model nothing
data fetch
data fetch extra
completion
--help=3
--version now
nothing
-x
---
"""

HEADS = "patient_id,intensity,hear_loss,age,rate,fmp,v_latency,v_amplitude,"


@pytest.fixture
def bad(tmp_path: Path) -> Program:
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


def _claiming_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        group = file.create_group("davis/left")
        group.create_dataset("events", (10**12, 4), np.float64, chunks=(1000, 4))
        group.create_dataset("image_raw", (10**9, 260, 346), np.uint8, chunks=(1, 260, 346))
        for name in ("image_raw_ts", "image_raw_event_inds"):
            group.create_dataset(name, (10**9,), np.float64, chunks=(1000,))


def _claiming_page(folder: Path) -> None:
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
@pytest.mark.parametrize("line", LINES.strip().splitlines())
def test_a_bad_input_is_one_error_and_nothing_is_written(
    line: str, bad: Program, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(bad.folder)
    before = bad.files()

    code = main(shlex.split(line))

    error = capfd.readouterr().err
    assert code in (1, 2), error
    assert error.startswith(("error: ", "warning: ")), error
    assert "error: " in error
    assert "Traceback" not in error
    assert "Warning" not in error
    assert bad.files() == before
