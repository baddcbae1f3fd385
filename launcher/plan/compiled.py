"""Compiled blocks in a trace: the programs of torch's compiler, without their kernels."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.abc import InspectLoader
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from launcher.plan import untraced

ERRORS = (*untraced.ERRORS, ImportError, AttributeError)
"""What a version of torch may raise whose compiler is not the expected one."""
LIMIT_S = 60.0
"""Of computing for the programs of a plan; models of many different blocks need longer."""


class Programs:
    """Counts the programs of the compiler: of a graph one for each pass, as soon as it runs."""

    def __init__(self) -> None:
        self.count = 0
        self._began = time.process_time()

    def load(self, graph: Any) -> Any:
        """For GraphLowering.compile_to_module, whose modules would reach a later training."""
        if time.process_time() - self._began > LIMIT_S:
            raise RuntimeError(f"the programs of all blocks take longer than {LIMIT_S:g} s")
        program = graph.codegen()[0]
        module: Any = ModuleType("compiled_block")
        _Source(getattr(program, "value", program)).exec_module(module)
        module.empty_strided_cpu, module.reinterpret_tensor = _empty, _view
        self.count += 1
        return module


class _Source(InspectLoader):
    """Imports what the compiler has just written, without a file."""

    def __init__(self, text: str) -> None:
        self._text = text

    def get_source(self, fullname: str) -> str:
        """The program."""
        return self._text


@contextmanager
def without_kernels() -> Iterator[Programs]:
    """Inside, torch.compile writes its programs for a CPU, and their fused kernels do nothing.

    The programs allocate and free as those of a real run: by the same graphs, partition into
    forward and backward pass, fusion and reuse of buffers. They work on tensors without values. A
    C++ compiler must be there, and compiles nothing. All of this is internal to torch, and written
    for version 2.13: another version may raise any of ERRORS, here or while compiling.
    """
    from torch._functorch import config as functorch_config
    from torch._functorch import partitioners
    from torch._inductor import config as inductor_config
    from torch._inductor import cpu_vec_isa
    from torch._inductor.async_compile import AsyncCompile
    from torch._inductor.graph import GraphLowering

    programs = Programs()
    changes = [
        # Nothing is kept, neither here nor on disk: a later training would miss the kernels.
        inductor_config.patch(compile_threads=1, fx_graph_cache=False),
        functorch_config.patch(enable_autograd_cache=False),
        torch._dynamo.config.patch(optimize_ddp=False),
        patch.object(GraphLowering, "compile_to_module", lambda graph: programs.load(graph)),
        patch.object(AsyncCompile, "cpp_pybinding", lambda *_: _nothing),
        # It would compile a program to find out what this CPU can do.
        patch.object(cpu_vec_isa, "valid_vec_isa_list", list),
        # The state of random numbers has no tensors without values; a GPU keeps it in host memory.
        patch.object(partitioners, "functionalize_rng_ops", lambda _, fw, bw, *__: (fw, bw)),
    ]
    torch._dynamo.reset()
    disabled = logging.root.manager.disable
    logging.disable()  # the training itself has the same warnings, and errors are raised as well
    try:
        with ExitStack() as stack:
            for change in (*changes, warnings.catch_warnings()):
                stack.enter_context(change)
            warnings.simplefilter("ignore")
            yield programs
    finally:
        logging.disable(disabled)
        torch._dynamo.reset()


def describe(error: BaseException) -> str:
    """What the compiler raised, in a line."""
    raised = error.__cause__ or error  # torch puts pages of advice around it
    lines = str(raised).strip().splitlines() or [type(raised).__name__]
    return f"torch {torch.__version__}: {lines[0]}"


def _nothing(*_: Any) -> None:
    """For a kernel."""


def _empty(shape: Sequence[int], stride: Sequence[int], dtype: torch.dtype) -> Tensor:
    """For an allocator that knows no tensors without values."""
    return torch.empty_strided(shape, stride, dtype=dtype)


def _view(tensor: Tensor, shape: Sequence[int], stride: Sequence[int], offset: int = 0) -> Tensor:
    """`tensor` as in torch's function of C++, which knows no tensors without values."""
    return tensor.as_strided(shape, stride, tensor.storage_offset() + offset)
