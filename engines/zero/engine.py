"""The zero engines: DeepSpeed's ZeRO stages 1 to 3, with and without offload."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import Module, Parameter

from gearshift.engines.base import (
    Blocks,
    EngineError,
    Numbers,
    OptimizerSpec,
    Options,
    State,
    Update,
    World,
)
from gearshift.engines.device import use_threads
from gearshift.engines.frozen_weights import round_weights
from gearshift.engines.loss_scale import LossScale
from gearshift.engines.norms import norms_in_fp32
from gearshift.engines.precision import DTYPES, check_precision, set_matmul_precision
from gearshift.engines.preparation import build_optimizer, change_forward, move_to_device
from gearshift.engines.state import (
    broadcast_buffers,
    is_deferred,
    shapes_of,
    stored_buffers,
    with_names,
)
from gearshift.engines.state_cover import check_cover
from gearshift.engines.used_parameters import UsedParameters
from gearshift.engines.weight_changes import WeightChanges
from gearshift.engines.zero import library
from gearshift.engines.zero.gradients import PassGradients, overflowed
from gearshift.engines.zero.state import ZeroState

if TYPE_CHECKING:
    from gearshift.engines.activation_offload import ActivationOffload

log = logging.getLogger(__name__)


class Zero:
    """Optimizer state, gradients and weights sharded over ranks as in `ds_config`. Collective.

    DeepSpeed is configured for one micro-batch per step, gets the end of each step from us, and
    runs torch's optimizer: so the update equals that of other engines, and nothing is compiled.

    A parameter without a gradient in a step is updated with a gradient of zero, while other engines
    skip it: DeepSpeed's optimizer sees one flat tensor of all parameters.
    """

    can_retry_step = False  # hooks of DeepSpeed count the gradients of a pass

    def __init__(self, world: World, options: Options):
        check_precision(options.precision, world.device)
        self.world = world
        self.without_gradient: Sequence[str] = ()
        self._options = options
        self._layout = options.ds_config["zero_optimization"]
        self._is_gathered = self._layout["stage"] == 3
        self.gathers_weights = self._is_gathered and world.size > 1
        self._loss_scale = LossScale() if options.precision == "fp16" else None
        library.load(world.device.type)
        self._is_first = True
        self._undo = ExitStack()
        self._undo.callback(set_matmul_precision(options.precision))

    def prepare(self, model: Module, optimizer: OptimizerSpec, blocks: Blocks) -> Module:
        self._undo.enter_context(library.side_effects_undone(self.world.device))
        threads = self._options.offload_threads
        offloads = self._layout.get("offload_optimizer", {}).get("device") == "cpu"
        # On a CPU the optimizer uses the threads of the forward pass.
        if offloads and (threads or self.world.device.type != "cpu"):
            self._undo.callback(use_threads(threads, self.world.local_size))
        self._shapes = shapes_of(model)
        self._undo.callback(library.hide_empty(model))
        for parameter in model.parameters():
            if not is_deferred(parameter):  # a state is made of flat intervals
                parameter.data = parameter.detach().contiguous()
        originals = {}
        dtype = DTYPES.get(self._options.precision)
        if dtype is not None:
            norms_in_fp32(model)
            originals = round_weights(dict(model.named_parameters()), dtype, keeps=True)
        forward = self._options
        # Its hooks break the graph before and after every layer.
        if self._is_gathered and forward.compile:
            forward = replace(forward, compile=False)
            if self.world.rank == 0:
                log.warning(
                    "ZeRO stage 3 runs without torch.compile: it gathers weights layer by layer"
                )
        offload = change_forward(model, blocks, forward, self.world.device)
        if not self._is_gathered:
            move_to_device(model, self.world)
        inner = build_optimizer(optimizer, dict(model.named_parameters()))
        names = {parameter: name for name, parameter in model.named_parameters()}
        self._names = [[names[p] for p in group["params"]] for group in inner.param_groups]
        config = self._config(optimizer.clip_norm)
        self._engine = library.initialize(self.world, model, inner, config)
        self._undo.callback(library.destroy, self._engine)
        _follow_training(self._engine)
        if self._is_gathered:
            self._undo.callback(save_by_reference(model, offload))
        self._buffers = stored_buffers(model)
        broadcast_buffers(self._buffers, self.world)
        self._find_state(model, originals)
        self._changes = self._watch_weights(model)
        self._used = UsedParameters(
            self.world,
            model,
            lambda module: self._is_gathered and _has_parameters(module),
        )
        self._undo.callback(self._used.close)
        return self._engine

    def _watch_weights(self, model: Module) -> WeightChanges:
        named = dict(model.named_parameters())
        trained = [name for name, p in named.items() if p.requires_grad]
        if not self._is_gathered:
            return WeightChanges(
                self.world, self._options, named, pinned=trained, copies=self._state.copies
            )
        names = {parameter: name for name, parameter in named.items()}

        def gathered(module: Module) -> Iterator[tuple[str, Tensor]]:
            read_outside: Mapping[int, Parameter] = getattr(module, "_external_params", {})
            for parameter in (*module.parameters(recurse=False), *read_outside.values()):
                if parameter.ds_status.name == "AVAILABLE":  # type: ignore[attr-defined]
                    yield names[parameter], parameter

        # With one process the gathered weights are the shard, of which fp32 copies are the master.
        changes = WeightChanges(
            self.world,
            self._options,
            named,
            pinned=named,
            copies=self._state.copies,
            sharded=named,
            interval_of=self._state.interval_of,
        )
        changes.watch(model.modules(), gathered)
        return changes

    def _config(self, clip_norm: float | None) -> dict[str, Any]:
        config = {
            "steps_per_print": 2**31,
            "wall_clock_breakdown": False,
            # DeepSpeed would reduce and accumulate in the dtype of the weights.
            "communication_data_type": "fp32",
            "data_types": {"grad_accum_dtype": "fp32"},
            **self._options.ds_config,
            "train_micro_batch_size_per_gpu": self._options.micro_batch,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": clip_norm or 0.0,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
        }
        if self._loss_scale:
            # Fixed: changed by us.
            config["fp16"] = {"enabled": True, "loss_scale": self._loss_scale.value}
        elif self._options.precision in DTYPES:
            config["bf16"] = {"enabled": True}
        return config

    def _find_state(self, model: Module, originals: Mapping[str, Tensor]) -> None:
        """Find the tensors of DeepSpeed that hold the state, and check that they are complete.

        The attributes of DeepSpeed are internal: versions differ, and a checkpoint with holes would
        be noticed too late. Raises EngineError on every rank.
        """
        self._zero = self._engine.optimizer
        try:
            self._state = ZeroState(self._zero, model, self.world, originals)
            self._gradients = PassGradients(self._zero, model)
            self._state.check()
            check_cover(self.state(), self.world)
        except (AttributeError, LookupError, TypeError, EngineError) as error:
            from deepspeed import __version__ as installed

            tested = library.OLDEST
            other = f" (this program was tested with {tested})" if installed != tested else ""
            raise EngineError(
                f"the state of this model in deepspeed {installed}{other} is not understood: "
                f"{error}; engine fsdp does not need deepspeed"
            ) from error

    @property
    def groups(self) -> list[dict[str, Any]]:
        return self._state.optimizer.param_groups

    @contextmanager
    def accumulate(self, last: bool) -> Iterator[None]:
        self._engine.set_gradient_accumulation_boundary(last)
        self._changes.begin_pass()
        with self._used.micro_batch(last):
            yield

    def backward(self, loss: Tensor) -> None:
        if self._loss_scale:
            # DeepSpeed multiplies losses by it, and divides norm and gradients by it.
            self._zero.loss_scale = self._loss_scale.value
        self._used.end_forward()
        self._gradients.reached.clear()
        self._engine.backward(loss)
        self._gradients.end_pass()
        self._used.add_gradients(self._gradients.reached)

    def step(self) -> Update:
        if self._is_first:
            self.without_gradient = self._gradients.never_reached()
            self._is_first = False
        self._changes.end_step()
        with self._used.exchange():
            self._used.end_segment()
            self._gradients.finish()
            update = self._update()
            broadcast_buffers(self._buffers, self.world)
        return update

    def _update(self) -> Update:
        scale = self._loss_scale
        overflow = scale is not None and overflowed(self._zero, self.world)
        if overflow:
            norm = torch.tensor(torch.inf, device=self.world.device)
        else:
            self._engine.step()
            norm = torch.as_tensor(
                self._zero._global_grad_norm, dtype=torch.float32, device=self.world.device
            )
            # DeepSpeed writes -1 for a norm that is not finite.
            norm = norm.masked_fill(norm < 0, torch.inf)
        if overflow or self._zero.overflow:
            self._gradients.discard()  # DeepSpeed keeps those of 16-bit weights with offload
        if scale is None:
            return Update(norm)
        used = scale.value
        return Update(norm, scale.update(overflow), used)

    def settle(self) -> None:
        """As `Engine.settle`."""

    def discard(self) -> None:
        self._changes.drop_step()
        self._gradients.discard()

    def resize(self, micro_batch: int, accumulation: int) -> None:
        """Nothing to do: DeepSpeed uses the numbers in its own reports only, which are off."""

    def state(self) -> State:
        groups = list(map(with_names, self.groups, self._names))
        scale = self._loss_scale.state() if self._loss_scale else {}
        return self._state.gather(self._shapes, groups, scale)

    def load(self, steps: Numbers, loss_scale: Numbers) -> None:
        self._state.load_steps(self._names, steps)
        if self._loss_scale:
            self._loss_scale.load(loss_scale)
        self.refresh()

    def refresh(self) -> None:
        self._state.refresh()

    def close(self) -> None:
        self._undo.close()


def _has_parameters(module: Module) -> bool:
    """Whether `module` has parameters of its own."""
    return next(module.parameters(recurse=False), None) is not None


def _follow_training(engine: Any) -> None:
    """Let train() and eval() do what those of a Module do.

    DeepSpeed's own leave `training` of its module on, and return nothing.
    """

    def train(mode: bool = True) -> Any:
        engine.training = mode
        engine.module.train(mode)
        return engine

    engine.train = train
    engine.eval = partial(train, False)


def save_by_reference(model: Module, offload: ActivationOffload | None) -> Callable[[], None]:
    """Let a forward pass of `model` save references to its parameters; returns a function to undo.

    A linear layer saves the transposed view of its weight. DeepSpeed releases the parameter after
    the layer, and gathers it again before the layer's backward pass, but the view would keep the
    memory of all layers. DeepSpeed's own remedy, `memory_efficient_linear`, rounds a layer with a
    bias twice in 16 bits. `offload`: what saves the tensors of blocks, but for parameters.
    """
    by_address: dict[int, Parameter] = {}

    def note(module: Module, _arguments: Any) -> None:
        by_address.update((p.data_ptr(), p) for p in module.parameters(recurse=False))

    def pack(tensor: Tensor) -> Any:
        parameter = by_address.get(tensor.data_ptr())
        # Another tensor may be where a parameter was until its release.
        if parameter is None or _layout(parameter) != _layout(tensor):
            return tensor
        return parameter, tensor.size(), tensor.stride()

    def forward(*args: Any, **kwargs: Any) -> Any:
        with saved_tensors_hooks(pack, _unpack):
            result = original(*args, **kwargs)
        by_address.clear()
        return result

    # They run after those of DeepSpeed, which gather.
    owners = filter(_has_parameters, model.modules())
    hooks = [module.register_forward_pre_hook(note) for module in owners]
    original = model.forward
    model.forward = forward
    if offload is not None:
        offload.save = pack
        offload.restore = _unpack

    def undo() -> None:
        for hook in hooks:
            hook.remove()
        model.forward = original

    return undo


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.data_ptr(), tensor.dtype, tensor.numel()


def _unpack(saved: Any) -> Tensor:
    if isinstance(saved, Tensor):
        return saved
    parameter, size, stride = saved
    return parameter.detach().as_strided(size, stride, parameter.storage_offset())
