"""Gearshift as a user runs it: the whole program, with the defaults of a run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch

import gearshift
from benchmarks.peers import LOG_EVERY
from benchmarks.workload import CLIP_NORM, SEED, Work
from gearshift.launcher.api import Run
from gearshift.training.checkpoint.reader import open_checkpoint


def ours(
    work: Work, engine: str = "local", more: Mapping[str, object] | None = None
) -> torch.nn.Module:
    """Train `work` from settings to run folder, and give the model of its last checkpoint.

    `more` are further settings. Its output is discarded. Evaluation comes after the last step,
    as no peer evaluates.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        open(os.devnull, "w") as nowhere,
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
    ):
        return _trained(work, train(work, engine, Path(folder) / "run", more or {}).folder)


def train(work: Work, engine: str, out: Path, more: Mapping[str, object]) -> Run:
    """The run of `work` in the run folder `out`; `more` are further settings."""
    settings = {
        "data.path": work.data,
        "data.seq_len": work.seq_len,
        "device": work.device,
        "precision": work.precision,
        "compile": work.compile,
        "engine.threads": work.threads,
        "train.micro_batch": work.micro_batch,
        "train.accumulation": work.world_size,
        "train.max_steps": work.steps,
        "train.epochs": 1000,
        "train.seed": SEED,
        "train.preview": False,
        "optim.lr": work.lr,
        "optim.weight_decay": work.weight_decay,
        "optim.clip_norm": CLIP_NORM,
        "schedule.name": "cosine",
        "schedule.warmup": work.warmup,
        "schedule.warmup_cap": None,
        "loader.workers": 0,
        "eval.every": None,
        "eval.share": work.eval_share,
        "save.every": None,
        "log.every": LOG_EVERY,
        **more,
    }
    model = "language" if "model.pretrained" in more else f"language:{work.size}"
    return gearshift.train(model, engine=engine, out=out, settings=settings)


def _trained(work: Work, folder: Path | None) -> torch.nn.Module:
    model = work.model()
    if folder is None:  # another rank than 0
        return model
    checkpoint = open_checkpoint(folder / "last")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(checkpoint.tensor("weight", name))
    return model
