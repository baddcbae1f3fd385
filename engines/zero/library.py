"""The DeepSpeed library: import and start without log output, builds or lasting side effects."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
import torch.distributed as dist
from pydantic import ValidationError
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.nn import Module
from torch.optim import Optimizer

from gearshift.engines import environment
from gearshift.engines.base import EngineError, World
from gearshift.engines.device import pinned
from gearshift.engines.state import broadcast, is_deferred

OLDEST = "0.19.8"
"""Older ones accumulate gradients of 16-bit weights in 16 bits with offload."""
KINDS = ("cpu", "cuda", "xpu")
"""The supported devices, which have the same names in DeepSpeed."""
_CHUNK_BYTES = 4 * 2**20


def load(kind: str) -> None:
    """Import DeepSpeed for devices of `kind`. Raises EngineError if that is impossible."""
    if kind not in KINDS:
        raise EngineError(
            f"the zero engines do not run on device {kind}; allowed: {', '.join(KINDS)}"
        )
    # DeepSpeed reads it at import and takes the first device it finds otherwise.
    variables = environment.variables()
    variables["DS_ACCELERATOR"] = kind
    # No operator is built for them, and it cannot parse entries such as 9.0a.
    variables.pop("TORCH_CUDA_ARCH_LIST", None)
    # No operator of DeepSpeed is built here, so it does not need nvcc; some versions cannot be
    # imported on a machine with a GPU and without nvcc (deepspeedai/DeepSpeed#7452).
    variables.setdefault("DS_IGNORE_CUDA_DETECTION", "1")
    with quiet():
        try:
            import deepspeed

            # By name: the attribute of that name is torch itself.
            collectives: Any = import_module("deepspeed.comm.torch")
        except ImportError as error:
            raise EngineError(f"deepspeed cannot be imported: {error}") from error
    log = logging.getLogger("DeepSpeed")
    log.setLevel(max(log.level, logging.WARNING))
    if _numbers(deepspeed.__version__) < _numbers(OLDEST):
        raise EngineError(
            f"deepspeed {deepspeed.__version__} is installed; the zero engines need {OLDEST} or "
            f"newer:  pip install 'deepspeed>={OLDEST}'"
        )
    accelerator = deepspeed.accelerator.get_accelerator().device_name()
    if accelerator != kind:
        raise EngineError(
            f"deepspeed was imported for device {accelerator} before this run on {kind}; "
            f"start a new process, or set DS_ACCELERATOR={kind} before the import"
        )
    # On a CPU DeepSpeed would compile an operator for collectives, for a minute at the first
    # start, which it uses for inference only.
    collectives.build_shm_op = lambda: None
    if kind == "cpu":
        from deepspeed.runtime.zero import stage_1_and_2

        stage_1_and_2.all_gather_dp_groups = _gather
    # DeepSpeed uses deprecated names of torch; a user cannot change that.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)


def _numbers(version: str) -> list[int]:
    """The first three numbers of a version; builds from source append a text such as +1a2b3c."""
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


def _gather(
    groups_flat: Sequence[Tensor],
    partitioned_param_groups: Sequence[Sequence[Tensor]],
    dp_process_group: Sequence[ProcessGroup],
    **_: int,
) -> None:
    """DeepSpeed's gather of updated weights, in chunks: gloo copies what it gathers at once."""
    for parts, group in zip(partitioned_param_groups, dp_process_group, strict=True):
        if len(parts) == 1:
            continue
        length = _CHUNK_BYTES // parts[0].itemsize
        for start in range(0, parts[0].numel(), length):
            shards = [part.detach()[start : start + length] for part in parts]
            dist.all_gather(shards, shards[dist.get_rank(group)], group)


def initialize(world: World, model: Module, optimizer: Optimizer, config: dict[str, Any]) -> Any:
    """DeepSpeed's engine around `model`. Collective. Raises EngineError for an invalid `config`."""
    import deepspeed

    with quiet():
        try:
            deepspeed.init_distributed(dist_init_required=False)
            if config["zero_optimization"]["stage"] == 3:
                # Not by DeepSpeed, which would first move the full model to the device.
                for buffer in model.buffers():
                    buffer.data = buffer.data.to(world.device)
                _shard(model, config)
            with _changed():
                return deepspeed.initialize(
                    model=model, optimizer=optimizer, config=config, dist_init_required=False
                )[0]
        except (ValueError, AssertionError) as error:  # an invalid value in the JSON raises either
            raise EngineError(
                f"deepspeed {deepspeed.__version__} rejects its config: {_describe(error)}"
            ) from error


def _shard(model: Module, config: dict[str, Any]) -> None:
    """Shard the parameters of `model` one by one; deferred ones without sending their values."""
    from deepspeed.runtime.zero import Init

    class InitOneByOne(Init):
        def _zero_init_param(self, param: Any) -> None:
            self._convert_to_deepspeed_param(param)
            if not is_deferred(param):
                # Not by DeepSpeed, which cannot send a tensor without an axis.
                broadcast(param.data)
            param.partition()

    InitOneByOne(module=model, config_dict_or_path=config)


def hide_empty(model: Module) -> Callable[[], None]:
    """Turn parameters without elements into constants; returns a function to undo.

    DeepSpeed has no place for them in its flat tensors, and stage 3 does not gather them.
    """
    hidden = []
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.numel():
                hidden.append((module, name, parameter))
    for module, name, parameter in hidden:
        delattr(module, name)
        module.register_buffer(name, parameter.detach(), persistent=False)

    def undo() -> None:
        for module, name, parameter in hidden:
            delattr(module, name)
            module.register_parameter(name, parameter)

    return undo


@contextmanager
def _changed() -> Iterator[None]:
    """Use DeepSpeed's optimizer of stages 1 and 2 in bf16, too, and do not send the weights.

    For stage 1 with bf16 weights and fp32 gradients it selects one that keeps its state otherwise.
    The ranks have equal weights already; DeepSpeed cannot send a tensor without an axis.
    """
    from deepspeed import DeepSpeedEngine

    select = DeepSpeedEngine._do_optimizer_sanity_check
    send = DeepSpeedEngine._broadcast_model
    DeepSpeedEngine._do_optimizer_sanity_check = lambda engine, optimizer: "zero_optimization"
    DeepSpeedEngine._broadcast_model = lambda engine: None
    try:
        yield
    finally:
        DeepSpeedEngine._do_optimizer_sanity_check = select
        DeepSpeedEngine._broadcast_model = send


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress log messages below a warning; DeepSpeed logs its complete config."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.INFO))
    try:
        yield
    finally:
        logging.disable(before)


def _describe(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    problems = []
    for problem in error.errors():
        key = ".".join(map(str, problem["loc"]))
        problems.append(f"{key}: {problem['msg']}")
    return "; ".join(problems)


def destroy(engine: Any) -> None:
    """Remove DeepSpeed's hooks from the model and its global state from the process.

    The next engine may use another process group. A group that is still referenced keeps its
    threads, and with gloo each of them wakes up a hundred times a second.
    """
    from deepspeed.comm import comm
    from deepspeed.runtime.zero.parameter_offload import FWD_MODULE_STACK
    from deepspeed.utils import groups

    parameters = list(engine.parameters())
    with quiet():
        engine.destroy()
    for parameter in parameters:
        for name, value in list(vars(parameter).items()):
            if callable(value) or isinstance(value, ProcessGroup):
                delattr(parameter, name)  # set by DeepSpeed: the group, and methods that hold it
    FWD_MODULE_STACK.clear()
    if groups._WORLD_GROUP is not None:
        dist.destroy_process_group(groups._WORLD_GROUP)
        groups._WORLD_GROUP = None
    comm.cdb = None


@contextmanager
def side_effects_undone(device: torch.device) -> Iterator[None]:
    """Set what DeepSpeed needs; on exit undo that, and its changes to the process.

    It gets pinned memory of the size that it asks for: torch rounds up to a power of two.
    """
    from deepspeed.accelerator import get_accelerator

    linear = torch.nn.functional.linear
    accelerator = get_accelerator()
    if device.type == "cuda":
        accelerator.pin_memory = lambda tensor, **_: pinned(tensor, device)
    variables = environment.variables()
    local_rank = variables.get("LOCAL_RANK")
    # DeepSpeed uses it as the index of the device, which is 0 everywhere if a scheduler shows
    # each process only its own device.
    variables["LOCAL_RANK"] = str(device.index or 0)
    try:
        yield
    finally:
        torch.nn.functional.linear = linear
        vars(accelerator).pop("pin_memory", None)
        if local_rank is None:
            del variables["LOCAL_RANK"]
        else:
            variables["LOCAL_RANK"] = local_rank
