"""DeepSpeed as a library: importing and starting it without noise, builds or traces left behind."""

from __future__ import annotations

import io
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from pydantic import ValidationError
from torch.nn import Module
from torch.optim import Optimizer

from engines.base import EngineError, World

ACCELERATORS = {"cpu": "cpu", "cuda": "cuda", "xpu": "xpu"}
"""Devices these engines run on, by DeepSpeed's names."""


def load(kind: str) -> ModuleType:
    """DeepSpeed for devices of `kind`. Raises EngineError where it cannot be imported for them."""
    if kind not in ACCELERATORS:
        raise EngineError(
            f"the zero engines do not run on device {kind}; legal: {', '.join(ACCELERATORS)}"
        )
    # DeepSpeed reads it at import and takes the first device it finds otherwise.
    os.environ["DS_ACCELERATOR"] = ACCELERATORS[kind]
    clean_architectures(os.environ)
    # No operator of DeepSpeed is built here: it need not look for nvcc, and some versions cannot be
    # imported where torch finds a GPU and nobody finds nvcc (deepspeedai/DeepSpeed#7452).
    os.environ.setdefault("DS_IGNORE_CUDA_DETECTION", "1")
    with quiet():
        try:
            import deepspeed

            # By name: an attribute of the same name is torch itself.
            collectives: Any = import_module("deepspeed.comm.torch")
        except ImportError as fault:
            raise EngineError(f"deepspeed cannot be imported: {fault}") from fault
    log = logging.getLogger("DeepSpeed")
    log.setLevel(max(log.level, logging.WARNING))
    log.addFilter(_is_news)
    _check_accelerator(deepspeed, kind)
    # On a CPU DeepSpeed would compile an operator for collectives, a minute at the first start,
    # which it then uses for inference only.
    collectives.build_shm_op = lambda: None
    # DeepSpeed calls torch by older names; nothing a person who trains could mend.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    return deepspeed


def _check_accelerator(deepspeed: ModuleType, kind: str) -> None:
    found = deepspeed.accelerator.get_accelerator().device_name()
    if found != kind:
        raise EngineError(
            f"deepspeed was imported for device {found} before this run, which is on {kind}; "
            f"start a new process, or set DS_ACCELERATOR={ACCELERATORS[kind]} before the import"
        )


def clean_architectures(environment: MutableMapping[str, str]) -> None:
    """Write entries of TORCH_CUDA_ARCH_LIST such as `9.0a` or `10.0f` as DeepSpeed can read them.

    The letter names a variant of the architecture, for which nothing is built here; DeepSpeed
    splits entries at the dot and takes the rest for numbers.
    """
    before = environment.get("TORCH_CUDA_ARCH_LIST")
    if before is None:
        return
    entries = re.sub(r"(\d+\.\d+)[a-z]", r"\1", before).replace(";", " ").split()
    numbers = [e for e in dict.fromkeys(entries) if re.fullmatch(r"\d+\.\d+(\+PTX)?", e)]
    if numbers:
        environment["TORCH_CUDA_ARCH_LIST"] = ";".join(numbers)
    else:
        del environment["TORCH_CUDA_ARCH_LIST"]


def initialize(
    deepspeed: ModuleType,
    world: World,
    model: Module,
    optimizer: Optimizer,
    config: Mapping[str, Any],
) -> Module:
    """DeepSpeed's engine around `model`. Collective. Raises EngineError for a bad `config`."""
    # Versions before 0.18 print.
    with quiet(), redirect_stdout(io.StringIO()):
        try:
            deepspeed.init_distributed(dist_init_required=False)
            if config["zero_optimization"]["stage"] == 3:
                # Here, not within DeepSpeed: that would first put the whole model on the device.
                for buffer in model.buffers():
                    buffer.data = buffer.data.to(world.device)
                deepspeed.zero.Init(module=model, config_dict_or_path=dict(config))
            engine, *_ = deepspeed.initialize(
                model=model, optimizer=optimizer, config=dict(config), dist_init_required=False
            )
        except (ValueError, AssertionError) as fault:  # a bad value in the JSON shows as either
            raise EngineError(
                f"deepspeed {deepspeed.__version__} refuses its configuration: {_words(fault)}"
            ) from fault
    return engine


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing below a warning from any logger; DeepSpeed tells its whole configuration."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.INFO))
    try:
        yield
    finally:
        logging.disable(before)


def _words(fault: Exception) -> str:
    if isinstance(fault, ValidationError):
        places = (".".join(map(str, error["loc"])) for error in fault.errors())
        return "; ".join(f"{p}: {e['msg']}" for p, e in zip(places, fault.errors(), strict=True))
    return str(fault)


def _is_news(record: logging.LogRecord) -> bool:
    # torch's own optimizers are untested in DeepSpeed's words, and what is tested here.
    return "untested optimizer" not in record.getMessage()


def forget(engine: Module) -> None:
    """Take DeepSpeed's hooks off the model, and let go of what it keeps for the whole process.

    The next engine may stand in another process group.
    """
    with quiet():
        engine.destroy()  # type: ignore[operator]
    kept: Any = import_module("deepspeed.runtime.zero.parameter_offload")
    kept.FWD_MODULE_STACK.clear()
    kept = import_module("deepspeed.utils.groups")
    kept._WORLD_GROUP = None
    kept = import_module("deepspeed.comm.comm")
    kept.cdb = None


@contextmanager
def traces_removed(device: torch.device) -> Iterator[None]:
    """What DeepSpeed needs and leaves in the process, for as long as an engine of it lives."""
    linear = torch.nn.functional.linear
    local_rank = os.environ.get("LOCAL_RANK")
    # DeepSpeed takes it for the index of the device; that is 0 everywhere if a scheduler shows
    # each process a device of its own only.
    os.environ["LOCAL_RANK"] = str(device.index or 0)
    try:
        yield
    finally:
        torch.nn.functional.linear = linear
        if local_rank is None:
            del os.environ["LOCAL_RANK"]
        else:
            os.environ["LOCAL_RANK"] = local_rank
