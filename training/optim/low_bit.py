"""AdamW with moments of 16 or 8 bits: they are fp32 only while a part of them is updated."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from subprocess import SubprocessError
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.optim import AdamW
from torch.utils._pytree import tree_map_only

from gearshift.engines.base import KEEPS_FP32
from gearshift.training.callbacks.base import Facts
from gearshift.training.optim.shards import Groups, shard
from gearshift.training.settings import LOW_BIT_LEAST

MOMENTS = ("exp_avg", "exp_avg_sq")
BLOCK = 256
"""Consecutive elements with one scale in 8 bits."""
# Elements of a parameter updated at once: 16 MB in fp32, for each of a few tensors.
_AT_ONCE = 2**22
# Blocks below it are zeros: the products of codes and smaller scales would lose bits.
_SMALLEST = 1e-30
# Multipliers of a hash: of Knuth, The Art of Computer Programming, 3.3.4 and 6.4, and of Appleby,
# MurmurHash3.
_ODD = (1013904243, -1640531527, -2048144789, -1028477387)
_LAST = 255  # The code of 1, and of all elements of a block of zeros
_LOW = 0xFFFF  # The bits of fp32 that bf16 lacks
_COMPILED_ON = {"cuda"}  # Types of devices; fused loops of a CPU gain little
log = logging.getLogger(__name__)
_aten = torch.ops.aten
Stored = tuple[Tensor, Tensor, Tensor, Tensor]
"""Codes and scales of blocks, the values of all codes, and the code of each number of bf16."""
_VIEWS = (_aten.detach.default, _aten.alias.default, _aten.view.default)


class LowBitAdamW(AdamW):
    """AdamW whose moments of larger parameters are stored in bf16, or as codes of 8 bits.

    A step makes them fp32 part by part, updates them, and rounds them. In bf16 it rounds up or down
    at random, so that small changes are not lost: next to a beta of 0.999 they are smaller than
    half a unit of bf16. torch's fused kernel takes moments of another dtype than the weights
    neither on a CPU nor, in all supported versions of torch, on a GPU.
    """

    least = LOW_BIT_LEAST
    """torch's AdamW updates smaller parameters."""

    def __init__(self, groups: Groups, state: Literal["bf16", "int8"], **adamw: Any):
        """`adamw`: options of torch's AdamW."""
        super().__init__(groups, **adamw)
        self._stored = state
        self._small = AdamW(self.param_groups, **adamw)

    def _is_low(self, parameter: Tensor, group: Facts) -> bool:
        if group.get(KEEPS_FP32):
            return False
        local = shard(parameter)
        return local.dtype == torch.float32 and local.numel() >= self.least

    def new_slot(self, kind: str, parameter: Tensor) -> Tensor:
        for group in self.param_groups:
            if any(each is parameter for each in group["params"]):
                break
        if not self._is_low(parameter, group):
            return torch.zeros_like(parameter)

        local = shard(parameter).detach()
        if self._stored == "bf16":
            return torch.zeros_like(local, dtype=torch.bfloat16)
        blocks = Blocks(local.numel(), kind == MOMENTS[0], local)
        return Blockwise(blocks, local.shape)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        self._small.param_groups = []
        self._small.state = self.state
        for group in self.param_groups:
            low: list[Tensor] = []
            small: list[Tensor] = []
            for parameter in group["params"]:
                if not self._is_low(parameter, group):
                    small.append(parameter)
                elif parameter.grad is not None:
                    low.append(parameter)
            self._small.param_groups.append({**group, "params": small})
            if low:
                self._update(low, group)
        self._small.step()

    def _update(self, parameters: Sequence[Tensor], group: Facts) -> None:
        """A step of AdamW for `parameters`, part by part, with moments decoded meanwhile."""
        steps = []
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                device = parameter.device if group["fused"] else "cpu"
                state["step"] = torch.zeros((), device=device)
                for kind in MOMENTS:
                    state[kind] = self.new_slot(kind, parameter)
            steps.append(state["step"])

        numbers = _numbers(group, torch.stack(steps))
        for parameter, row in zip(parameters, numbers, strict=True):
            state = self.state[parameter]
            weights = shard(parameter).detach().view(-1)
            gradient = shard(parameter.grad).reshape(-1)
            update_parts(weights, gradient, row, [state[kind] for kind in MOMENTS])
        torch._foreach_add_(steps, 1)


def _numbers(group: Facts, steps: Tensor) -> Tensor:
    """What an update of each parameter needs [parameter, number] after `steps` [parameter] others.

    On the device of `steps`, without waiting for it. Rows of 32 bytes: the compiler copies what is
    not aligned to 16.
    """
    beta1, beta2 = group["betas"]
    lr = group["lr"]
    first = _correction(beta1, steps)
    second = _correction(beta2, steps)
    columns = [steps, lr / first, second.sqrt()]
    for value in (1 - lr * group["weight_decay"], 1 - beta1, 1 - beta2, group["eps"], 0.0):
        columns.append(torch.full_like(steps, value))
    return torch.stack(columns, 1)


def _correction(beta: float, steps: Tensor) -> Tensor:
    # 1 - beta ** steps would cancel most digits of fp32; a beta may be 0.
    return -torch.expm1((steps + 1) * math.log(max(beta, 1e-30)))


def update_parts(
    weights: Tensor,
    gradient: Tensor,
    numbers: Tensor,
    moments: Sequence[Tensor],
) -> None:
    """Update flat `weights` and their `moments`, which are Blockwise or have 16 bits."""
    for start in range(0, len(weights), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        if isinstance(moments[0], Blockwise):
            stored = [cast("Blockwise", moment).blocks.stored(part) for moment in moments]
            _update_blocks(weights[part], gradient[part], numbers, stored)
        else:
            first, second = (moment.view(-1)[part] for moment in moments)
            _as_one(_step_of_bf16, weights[part], gradient[part], numbers, first, second)


def _update_blocks(
    weights: Tensor,
    gradient: Tensor,
    numbers: Tensor,
    stored: Sequence[Stored],
) -> None:
    """Update `weights`, a part of a parameter, and the `stored` blocks of its moments."""
    first, second = stored
    size = len(weights)
    missing = -size % BLOCK
    whole = weights
    if missing:
        whole = pad(weights, (0, missing))
        gradient = pad(gradient, (0, missing))
    scales = _as_one(_step_of_int8, whole, gradient, numbers, *first, *second)
    if missing:
        weights.copy_(whole[:size])
    torch._foreach_copy_([first[1], second[1]], scales)


def _step_of_bf16(
    weights: Tensor,
    gradient: Tensor,
    numbers: Tensor,
    first: Tensor,
    second: Tensor,
) -> None:
    first_values = first.float()
    second_values = second.float()
    _adamw(weights, gradient, numbers, first_values, second_values)
    salt = numbers[0].to(torch.int32) * _ODD[2]
    first.copy_(_rounded(first_values, salt))
    second.copy_(_rounded(second_values, salt))


def _step_of_int8(
    weights: Tensor,
    gradient: Tensor,
    numbers: Tensor,
    codes1: Tensor,
    scales1: Tensor,
    table1: Tensor,
    nearest1: Tensor,
    codes2: Tensor,
    scales2: Tensor,
    table2: Tensor,
    nearest2: Tensor,
) -> tuple[Tensor, Tensor]:
    """The new scales of both moments.

    The compiler would write them in place in kernels of their own. Each moment is a `Stored`.
    """
    first = _products(codes1, scales1, table1)
    second = _products(codes2, scales2, table2)
    _adamw(weights, gradient, numbers, first, second)
    new_codes, new_scales1 = _nearest_codes(first, nearest1)
    codes1.copy_(new_codes)
    new_codes, new_scales2 = _nearest_codes(second, nearest2)
    codes2.copy_(new_codes)
    return new_scales1, new_scales2


def _adamw(
    weights: Tensor,
    gradient: Tensor,
    numbers: Tensor,
    first: Tensor,
    second: Tensor,
) -> None:
    """A step in place, as torch's AdamW. `numbers`: a row of `_numbers`.

    Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019, algorithm 2.
    """
    _, rate, root, decay, share1, share2, eps, _ = numbers.unbind()
    first.mul_(1 - share1).add_(gradient * share1)
    second.mul_(1 - share2).add_(gradient.square().mul_(share2))
    change = first / second.sqrt().div_(root).add_(eps)
    weights.mul_(decay).sub_(change.mul_(rate))


def _rounded(values: Tensor, salt: Tensor) -> Tensor:
    """fp32 `values` in bf16, up or down with the probability that keeps the mean.

    A hash of the value, its place and `salt`, a whole number, decides: a resumed run repeats it.
    """
    bits = values.view(torch.int32)
    places = torch.arange(len(bits), dtype=torch.int32, device=bits.device)
    noise = (places * _ODD[0] + salt).bitwise_xor_(bits).mul_(_ODD[1])
    # Mixed twice: with one product, a value that was rounded down was rounded down again.
    noise.bitwise_xor_(noise >> 15).mul_(_ODD[2])
    noise.bitwise_xor_(noise >> 13).mul_(_ODD[3])
    noise.bitwise_right_shift_(16).bitwise_and_(_LOW)
    rounded = noise.add_(bits).bitwise_and_(~_LOW)
    return rounded.view(torch.float32).to(torch.bfloat16)


@cache
def _tables(is_signed: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """The values of the codes in [-1, 1], and the code of each number of bf16, by its bits.

    Dynamic codes: 7 decades, each with twice the codes of the one below. Their values are not
    those of bitsandbytes where decoding and encoding again must change nothing: -1 is one, so that
    a scale is always that of a code. Second moments have no zero next to others: their roots divide
    the first moments. Source: Dettmers et al., 8-bit Optimizers via Block-wise Quantization, 2022.
    """
    values = [0.0, 1.0]
    for decade in range(7):
        count = 2**decade if is_signed else 2 ** (decade + 1)
        ends = torch.linspace(0.1, 1, count + 1, dtype=torch.float64)
        means = (ends[1:] + ends[:-1]) / 2 * 10.0 ** (decade - 6)
        values += means
        if is_signed:
            values += -means
    codes = torch.tensor(sorted(values), dtype=torch.float64)
    codes[0] = -1 if is_signed else codes[1]

    numbers = torch.arange(2**16).to(torch.int16).view(torch.bfloat16).double()
    borders = (codes[1:] + codes[:-1]) / 2
    nearest = torch.bucketize(numbers, borders).to(torch.uint8)
    nearest[numbers.isinf()] = _LAST  # of a block of zeros
    return codes.float().to(device), nearest.to(device)


def _products(codes: Tensor, scales: Tensor, table: Tensor) -> Tensor:
    """The values [element] of `codes` [block, BLOCK] with `scales` [block]."""
    values = table.index_select(0, codes.view(-1).to(torch.int32)).view(codes.shape)
    return values.mul_(scales.unsqueeze(1)).view(-1)


def _nearest_codes(values: Tensor, nearest: Tensor) -> tuple[Tensor, Tensor]:
    """Codes [block, BLOCK] and scales [block] of `values` [element]."""
    blocks = values.view(-1, BLOCK)
    scales = blocks.abs().amax(1)
    scales = scales.masked_fill(scales < _SMALLEST, 0)
    shares = (blocks / scales.unsqueeze(1)).to(torch.bfloat16)
    keys = shares.view(torch.int16).to(torch.int32).bitwise_and_(_LOW).view(-1)
    return nearest.index_select(0, keys).view(-1, BLOCK), scales


_compiled = cache(partial(torch.compile, fullgraph=True, dynamic=True))


def _as_one(function: Callable[..., Any], *tensors: Tensor) -> Any:
    """`function` of `tensors`, which it may change, in one kernel on a GPU.

    Without it each operator would move all elements. Where there is no compiler, with a warning,
    the operators run one after the other.
    """
    device = tensors[0].device.type
    if device not in _COMPILED_ON:
        return function(*tensors)
    try:
        # As no views: the sizes of what they are views of would be compiled in.
        return _compiled(function)(*(tensor.data for tensor in tensors))
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ImportError, OSError, SubprocessError) as error:
        log.warning(f"torch.compile failed; optim.state runs without it: {error!r:.200}")
        _COMPILED_ON.discard(device)
    return function(*tensors)


def _span(start: int, stop: int) -> slice:
    """The blocks that have elements [start, stop)."""
    return slice(start // BLOCK, -(-stop // BLOCK))


class Blocks:
    """Flat values of fp32 as codes of 8 bits; each block of BLOCK has a scale.

    The scale is the largest absolute value. Decoding and encoding again gives the same values.
    They are on the device of `like`, and without values if it is a fake tensor, as in a plan.
    """

    def __init__(self, size: int, is_signed: bool, like: Tensor) -> None:
        self.size = size
        count = -(-size // BLOCK)
        self.codes = like.new_full((count, BLOCK), _LAST, dtype=torch.uint8)
        self.scales = like.new_zeros(count, dtype=torch.float32)
        # Now, not at the peak of a step.
        self._table, self._nearest = _tables(is_signed, like.device)
        self.incomplete: dict[int, Tensor] = {}
        """The values of blocks that were written in part, by number, until the next step."""

    def decoded(self, start: int, stop: int) -> Tensor:
        """The values of all blocks with elements of the interval; 0 behind the last element."""
        span = _span(start, stop)
        values = _products(self.codes[span], self.scales[span], self._table)
        values[self.size - span.start * BLOCK :] = 0
        for number, block in self.incomplete.items():
            if span.start <= number < span.stop:
                values.view(-1, BLOCK)[number - span.start] = block
        return values

    def write(self, start: int, values: Tensor) -> None:
        """Store `values` from element `start` on; the rest of blocks at their ends may follow."""
        stop = start + len(values)
        span = _span(start, stop)
        ends = [end // BLOCK for end in (start, stop) if end % BLOCK and end < self.size]
        whole = self.decoded(start, stop)
        whole[start % BLOCK :][: len(values)] = values

        for number in range(span.start, span.stop):
            self.incomplete.pop(number, None)
        for number in ends:
            self.incomplete[number] = whole.view(-1, BLOCK)[number - span.start].clone()
        self.codes[span], self.scales[span] = _nearest_codes(whole, self._nearest)

    def stored(self, part: slice) -> Stored:
        """The blocks of `part`, for a step."""
        self.incomplete.clear()  # their codes are written as well
        span = _span(part.start, part.stop)
        return self.codes[span], self.scales[span], self._table, self._nearest


class Blockwise(Tensor):
    """A tensor that is read and written as fp32, and stored as `Blocks`.

    It can be copied from and to, flattened and cut; any other operator gets its values as a new
    tensor.
    """

    blocks: Blocks
    first: int
    """Elements of `blocks` before it."""

    @staticmethod
    def __new__(cls, blocks: Blocks, shape: Sequence[int], first: int = 0) -> Blockwise:
        """A view of `blocks` from element `first` on."""
        self: Any = torch.Tensor._make_wrapper_subclass(
            cls,
            shape,
            dtype=torch.float32,
            device=blocks.codes.device,
        )
        self.blocks = blocks
        self.first = first
        self.codes = blocks.codes
        self.scales = blocks.scales
        return cast("Blockwise", self)

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["codes", "scales"], None

    def read(self) -> Tensor:
        values = self.blocks.decoded(self.first, self.first + self.numel())
        return values[self.first % BLOCK :][: self.numel()].view(self.shape)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: Any,
        types: Any,
        args: Any = (),
        kwargs: Any = None,
    ) -> Any:
        """Views share the codes; a copy decodes a part after the other."""
        kwargs = kwargs or {}
        if func in _VIEWS:
            return _view(*args)
        if func is _aten.slice.Tensor:
            return _slice(*args)
        if func is _aten.copy_.default:
            return _copy(*args, **kwargs)
        args, kwargs = tree_map_only(cls, cls.read, (args, kwargs))
        return func(*args, **kwargs)


def _view(tensor: Blockwise, shape: Sequence[int] | None = None) -> Blockwise:
    if shape is None:
        shape = tensor.shape
    elif -1 in shape:
        shape = [tensor.numel()]
    return Blockwise(tensor.blocks, shape, tensor.first)


def _slice(
    tensor: Blockwise,
    dim: int = 0,
    start: int | None = None,
    stop: int | None = None,
) -> Blockwise:
    elements = range(tensor.numel())[start:stop]
    return Blockwise(tensor.blocks, [len(elements)], tensor.first + elements.start)


def _copy(target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    flat = target.view(-1)
    values = source.reshape(-1)
    for start in range(0, target.numel(), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        chunk = values[part]
        if isinstance(chunk, Blockwise):
            chunk = chunk.read()
        if isinstance(target, Blockwise):
            target.blocks.write(target.first + start, chunk)
        else:
            flat[part].copy_(chunk, non_blocking=non_blocking)
    return target
