"""Lines to paste against wrong arguments and settings: after each, the command starts."""

import json

import pytest

from tests.edges.pasting import DATA, QUICK, Case, folder_of, parameters
from tests.launcher.custom_tasks import BODY, HEAD, LINE
from tests.runs.conftest import REQUESTS

TASK = (HEAD + LINE + BODY).replace("class Line", "class Mine")
MODEL = {"my_model": folder_of(config_json=json.dumps({"model_type": "llama"}))}

TEXTS = {"texts": folder_of(a_jsonl=REQUESTS)}
YAML = "--config mine.yaml --dry-run"
CONTEXT = {"model_type": "llama", "max_position_embeddings": 512}
LANGUAGE = f"--data mine.jsonl --model language:tiny {QUICK}"
CASES = [
    Case("--nproc 100000 --dry-run"),
    Case("--set model.pretrained=my_model --seq-len 4096 --dry-run", {"my_model": folder_of(config_json=json.dumps(CONTEXT))}),
    Case("--set train.global_batch=10 --batch-size 4 --set train.accumulation=2 --dry-run"),
    Case("--set train.global_batch=7 --nproc 2 --dry-run"),
    Case("submit --dry-run --partition-x debug", says="--partition"),
    Case("--mode fast --lite --dry-run"),
    Case("new-task"),
    Case("--model ../there/far_task.py:Mine --dry-run", {"../there/far_task.py": TASK}),
    Case(YAML, {"mine.yaml": "optim:\n  lrr: 1e-3\n"}),
    Case("--set optim.lr=1e-3 --lr 1e-4 --dry-run"),
    Case(YAML, {"mine.yaml": "precision: bf61\n"}),
    Case("--model near_task:Mien --dry-run", {"near_task.py": TASK}),
    Case("--model ./my_modle --dry-run", MODEL),
    Case("--set optim=adamw --dry-run"),
    Case("--continuous-learning --data mine.jsonl --dry-run", DATA),
    Case("--continuous-learning --data embedded:commands --dry-run", TEXTS, {"FOLDER": "texts"}),
    Case("--continuous-learning --data texts --set save.last=false --dry-run", TEXTS),
    Case("--continuous-learning --data texts --out texts/run --dry-run", TEXTS, {"DIR": "run"}),
    Case(YAML, DATA | {"mine.yaml": "download:\n  files: [https://a.b/c.zip]\n"}, {"PATH": "mine.jsonl"}),
    Case(f"{YAML} --data mine.jsonl", DATA | {"mine.yaml": "download:\n  files:\n    - https://a.b/\n"}),
    Case("--mode gentle.yaml --dry-run", {"gentle.yaml": "mode: fast\nmodel:\n  size: small\n"}),
    Case("--model abr --set stages=[encoder] --dry-run"),
    Case("--model whole_task:Mine --mode staged --dry-run", {"whole_task.py": TASK}),
    Case("--mode staged --set stages=[txt,dialogues] --dry-run"),
    Case("--mode staged --set stages=[dialogues,text] --dry-run"),
    Case("--config mien.yaml --dry-run", {"mine.yaml": "train.seed: 3\n"}),
    Case("--ds-config ds.json --engine ddp --dry-run", {"ds.json": "{}"}),
    Case("--data mien.jsonl --dry-run", DATA),
    Case(f"{LANGUAGE} --set schedule.warmup=5 --set schedule.warmup_cap=null", DATA),
    Case("--set train.max_steps=null --set train.epochs=null --dry-run"),
    Case("--set save.last=false --set save.keep_best=0 --dry-run"),
    Case(f"{LANGUAGE} --set eval.every=5", DATA),
    Case("--batch-size 2 --dry-run"),
    Case("--set model.lora.rank=8 --dry-run", MODEL, {"FOLDER": "my_model"}),
    Case("--set optim.momentum=0.9 --dry-run"),
]  # fmt: skip


@pytest.mark.parametrize("case", parameters(CASES))
def test_after_a_line_is_pasted_its_error_is_gone(case, pasted):
    assert pasted(case)
