"""A GPU that torch takes for real, on a CPU: what would reach the driver is counted, and raises."""

import re
import sys
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import torch

_IN_C = re.compile(r"\b(_cuda_[a-z]\w+)")
"""What torch.cuda calls of torch._C; a torch for the CPU lacks most of it."""
_LAZY_INIT = torch.cuda._lazy_init
"""What functions of torch.cuda call first; tensors on the device, too."""


class Reached(RuntimeError):
    """The driver would have been used: CUDA itself raises this in a fork of a process with it."""


@contextmanager
def simulated_cuda(devices=1, **answers):
    """Inside, torch finds `devices` GPUs. Yields the calls so far, with their number.

    Calls that would reach the driver raise Reached. `answers`: what functions of torch.cuda return
    instead, by name, such as get_device_capability=(9, 0). Those that ask for GPUs always answer.
    """
    calls = Counter()

    def counted(name, *answer):
        def call(*args, **kwargs):
            frame = sys._getframe(1)
            file = frame.f_code.co_filename.rpartition("site-packages/")[2]
            calls[f"{name} by {file}:{frame.f_code.co_name}"] += 1
            if not answer:
                raise Reached(name)
            return answer[0]

        return call

    given = {"is_available": True, "device_count": devices, "is_initialized": False, **answers}
    cuda = [module for name, module in sys.modules.items() if name.startswith("torch.cuda")]
    in_c = {name for name in dir(torch._C) if name.startswith("_accelerator_")}
    for path in Path(torch.cuda.__file__).parent.glob("*.py"):
        in_c.update(_IN_C.findall(path.read_text("utf-8")))
    in_c.discard("_cuda_getDeviceCount")  # of a torch for CUDA, with names that others import
    with ExitStack() as stack:

        def replace(module, name, new):
            stack.enter_context(patch.object(module, name, new, create=True))

        for name in in_c:
            replace(torch._C, name, counted(f"torch._C.{name}"))
        replace(torch._C, "_accelerator_getAccelerator", lambda: torch.device("cuda"))
        replaced = {_LAZY_INIT: counted("torch.cuda._lazy_init")}
        for name, answer in given.items():
            replaced[getattr(torch.cuda, name)] = counted(f"torch.cuda.{name}", answer)
        for module in cuda:  # some import functions of others
            for name, value in list(vars(module).items()):
                if callable(value) and name.startswith("_cuda_"):
                    replace(module, name, counted(f"torch._C.{name}"))
                elif callable(value) and getattr(value, "__hash__", None) and value in replaced:
                    replace(module, name, replaced[value])
        yield calls
