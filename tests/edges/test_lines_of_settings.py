"""Lines to paste against wrong arguments and settings: after each, the command starts."""

from __future__ import annotations

import json

import pytest

from tests.edges.pasting import QUICK, Case, folder_of, parameters
from tests.launcher.config.original_words import FILES
from tests.runs.conftest import REQUESTS

TASK = (
    "import torch\n"
    "from models.custom import CustomTask\n\n\n"
    "class Mine(CustomTask):\n"
    "    def samples(self, split):\n"
    "        return [{'x': torch.ones(2), 'y': torch.ones(1)} for _ in range(40)]\n\n"
    "    def build(self):\n"
    "        return torch.nn.Linear(2, 1)\n\n"
    "    def measure(self, model, batch):\n"
    "        return {'loss': (model(batch['x']) - batch['y']).square().sum()}\n"
)
MODEL = {"my_model": folder_of(config_json=json.dumps({"model_type": "llama"}))}
DATA = {"mine.jsonl": REQUESTS}
CONFIG = "launcher/config/"

CASES = [
    Case(f"{CONFIG}adapt.py:Adaptation.impossible", "--nproc 100000 --dry-run"),
    Case(
        f"{CONFIG}adapt.py:_context",
        "--set model.pretrained=my_model --seq-len 4096 --dry-run",
        {
            "my_model": folder_of(
                config_json=json.dumps({"model_type": "llama", "max_position_embeddings": 512})
            )
        },
    ),
    Case(
        f"{CONFIG}batching.py:_contradiction",
        "--set train.global_batch=10 --batch-size 4 --set train.accumulation=2 --dry-run",
    ),
    Case(
        f"{CONFIG}batching.py:_no_multiple", "--set train.global_batch=10 --batch-size 4 --dry-run"
    ),
    Case(f"{CONFIG}batching.py:_no_share", "--set train.global_batch=7 --nproc 2 --dry-run"),
    Case(f"{CONFIG}argument_errors.py:unknown_option", "--epohcs 3 --dry-run"),
    Case(
        f"{CONFIG}argument_errors.py:unknown_option",
        "submit --dry-run --partition-x debug",
        says="--partition",
    ),
    Case(f"{CONFIG}argument_errors.py:second_mode", "--mode fast --lite --dry-run"),
    Case(f"{CONFIG}argument_errors.py:missing_argument", "new-task"),
    Case(f"{CONFIG}argument_errors.py:wrong_argument", "list modles"),
    Case(
        f"{CONFIG}custom_task.py:_is_file",
        "--model ../there/far_task.py:Mine --dry-run",
        {"../there/far_task.py": TASK},
    ),
    Case(f"{CONFIG}value_errors.py:_unknown_key", "--set optim.lrr=1e-3 --dry-run"),
    Case(
        f"{CONFIG}value_errors.py:_unknown_key",
        "--config mine.yaml --dry-run",
        {"mine.yaml": "optim:\n  lrr: 1e-3\n"},
    ),
    Case(f"{CONFIG}value_errors.py:set_twice", "--set optim.lr=1e-3 --lr 1e-4 --dry-run"),
    Case(
        f"{CONFIG}value_errors.py:bad_value",
        "--config mine.yaml --dry-run",
        {"mine.yaml": "precision: bf61\n"},
    ),
    Case(f"{CONFIG}value_errors.py:bad_value", "--model my_model --dry-run", MODEL),
    Case(
        f"{CONFIG}errors.py:custom_task_errors",
        "--model near_task:Mien --dry-run",
        {"near_task.py": TASK},
    ),
    Case(f"{CONFIG}value_errors.py:_no_path", "--model ./my_modle --dry-run", MODEL),
    Case(
        f"{CONFIG}value_errors.py:_item_diagnostic",
        "--config mine.yaml --dry-run --data mine.jsonl",
        DATA
        | {"mine.yaml": "download:\n  files:\n    - url: https://a.b/c.zip\n      nmae: d.zip\n"},
    ),
    Case(f"{CONFIG}value_errors.py:_no_section", "--set optim=adamw --dry-run"),
    Case(
        f"{CONFIG}feature_checks.py:check_continual",
        "--continuous-learning --data mine.jsonl --dry-run",
        DATA,
    ),
    Case(
        f"{CONFIG}feature_checks.py:check_continual",
        "--continuous-learning --data embedded:commands --dry-run",
        {"texts": folder_of(a_jsonl=REQUESTS)},
        {"FOLDER": "texts"},
    ),
    Case(
        f"{CONFIG}feature_checks.py:check_continual",
        "--continuous-learning --data texts --set save.last=false --dry-run",
        {"texts": folder_of(a_jsonl=REQUESTS)},
    ),
    Case(
        f"{CONFIG}feature_checks.py:check_run_folder",
        "--continuous-learning --data texts --out texts/run --dry-run",
        {"texts": folder_of(a_jsonl=REQUESTS)},
        {"DIR": "run"},
    ),
    Case(
        f"{CONFIG}feature_checks.py:check_download",
        "--config mine.yaml --dry-run",
        DATA | {"mine.yaml": "download:\n  files: [https://a.b/c.zip]\n"},
        {"PATH": "mine.jsonl"},
    ),
    Case(
        f"{CONFIG}feature_checks.py:check_download",
        "--config mine.yaml --dry-run --data mine.jsonl",
        DATA | {"mine.yaml": "download:\n  files:\n    - https://a.b/\n"},
    ),
    Case(
        f"{CONFIG}parse.py:UserSettings.mode_layer",
        "--mode gentle.yaml --dry-run",
        {"gentle.yaml": "mode: fast\nmodel:\n  size: small\n"},
    ),
    Case(f"{CONFIG}original_files.py:as_config", "--config abr.yaml", {"abr.yaml": FILES["abr"]}),
    Case(f"{CONFIG}check.py:_stages", "--model abr --set stages=[encoder] --dry-run"),
    Case(
        f"{CONFIG}check.py:_stages",
        "--model whole_task:Mine --mode staged --dry-run",
        {"whole_task.py": TASK},
    ),
    Case(f"{CONFIG}check.py:_wrong_names.error", "--mode staged --stage txt --dry-run"),
    Case(
        f"{CONFIG}check.py:_wrong_names.error",
        "--mode staged --set stages=[txt,dialogues] --dry-run",
    ),
    Case(
        f"{CONFIG}check.py:_wrong_names.error",
        "--mode staged --set stages=[dialogues,text] --dry-run",
    ),
    Case(
        f"{CONFIG}settings_file.py:read_text",
        "--config mien.yaml --dry-run",
        {"mine.yaml": "train.seed: 3\n"},
    ),
    Case(
        f"{CONFIG}check.py:_engine",
        "--ds-config ds.json --engine ddp --dry-run",
        {"ds.json": "{}"},
    ),
    Case(f"{CONFIG}check.py:_paths", "--data mien.jsonl --dry-run", DATA),
    Case(
        f"{CONFIG}check.py:long_warmup",
        f"--data mine.jsonl --model language:tiny {QUICK} --set schedule.warmup=5 --set schedule.warmup_cap=null",
        DATA,
    ),
    Case(
        f"{CONFIG}check.py:_length", "--set train.epochs=null --set train.max_steps=null --dry-run"
    ),
    Case(f"{CONFIG}check.py:_length", "--set save.last=false --set save.keep_best=0 --dry-run"),
    Case(
        f"{CONFIG}check.py:too_rare",
        f"--data mine.jsonl --model language:tiny {QUICK} --set eval.every=5",
        DATA,
    ),
    Case(f"{CONFIG}check.py:_batch", "--batch-size 2 --dry-run"),
    Case(
        f"{CONFIG}check.py:_no_effect",
        "--set model.lora.rank=8 --dry-run",
        MODEL,
        {"FOLDER": "my_model"},
    ),
    Case(f"{CONFIG}check.py:_no_effect", "--set optim.momentum=0.9 --dry-run"),
]


@pytest.mark.parametrize("case", parameters(CASES))
def test_after_a_line_is_pasted_its_error_is_gone(case, pasted):
    assert pasted(case)
