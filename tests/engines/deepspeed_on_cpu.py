"""Imports DeepSpeed, if it is installed, for processes that are forked from this one."""

from contextlib import suppress
from importlib import import_module

from gearshift.engines.base import EngineError
from gearshift.engines.zero import library

LATER = (
    "deepspeed.module_inject.auto_ep_layer",
    "deepspeed.runtime.superoffload.superoffload_stage3",
    "deepspeed.runtime.zero.muon.muon_optimizer",
    "torch._inductor.compile_fx",
)
"""What its first engine imports, for seconds in each process."""

with suppress(EngineError):
    library.load("cpu")
    for name in LATER:
        with suppress(ImportError):
            import_module(name)
