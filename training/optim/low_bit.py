"""AdamW with moments of 16 or 8 bits: they are fp32 only while a part of them is updated."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from subprocess import SubprocessError
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor
from torch.optim import AdamW
from torch.optim.adamw import adamw
from torch.utils._pytree import tree_map_only

from training.callbacks.base import Facts
from training.optim.shards import shard

MOMENTS = ("exp_avg", "exp_avg_sq")
BLOCK = 256
"""Consecutive elements with one scale in 8 bits."""
_LEAST = 4096  # Elements of a parameter whose moments have fewer bits; those of smaller ones stay fp32
_AT_ONCE = 2**22  # Elements of a parameter updated at once: 16 MB in fp32, for each of a few tensors
_SMALLEST = 1e-30  # Blocks below it are zeros: the products of codes and smaller scales would lose bits
# Multipliers of a hash: of Knuth, The Art of Computer Programming, 3.3.4 and 6.4, and of Appleby,
# MurmurHash3.
_ODD = (1013904243, -1640531527, -2048144789, -1028477387)
_LAST = 255  # The code of 1, and of all elements of a block of zeros
_LOW = 0xFFFF  # The bits of fp32 that bf16 lacks
_COMPILED_ON = {"cuda"}  # Types of devices; fused loops of a CPU gain little
log = logging.getLogger(__name__)
_Result = TypeVar("_Result")
_aten = torch.ops.aten
_VIEWS = (_aten.detach.default, _aten.alias.default, _aten.view.default)


class LowBitAdamW(AdamW):
    """AdamW whose moments of larger parameters are stored in bf16, or as codes of 8 bits.

    A step makes them fp32 part by part, updates them with torch's own kernel, and rounds them. In
    bf16 it rounds up or down at random, so that small changes are not lost: next to a beta of 0.999
    they are smaller than half a unit of bf16. The fused kernel takes moments of another dtype than
    the weights neither on a CPU nor, in all supported versions of torch, on a GPU.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        state: Literal["bf16", "int8"],
        least: int = _LEAST,
        **options: Any,
    ):
        """`least`: elements of a parameter from which on `state` counts; `options`: of AdamW."""
        super().__init__(groups, **options)
        self._stored, self._least = state, least

    def new_slot(self, kind: str, parameter: Tensor) -> Tensor:
        held = shard(parameter).detach()
        if held.dtype != torch.float32 or held.numel() < self._least:
            return torch.zeros_like(held)
        if self._stored == "bf16":
            return torch.zeros_like(held, dtype=torch.bfloat16)
        count = -(-held.numel() // BLOCK)
        codes = held.new_full((count, BLOCK), _LAST, dtype=torch.uint8)
        is_signed = kind == MOMENTS[0]
        _tables(is_signed, held.device)  # now, not at the peak of a step
        blocks = _Blocks(codes, held.new_zeros(count), is_signed, held.numel())
        return Blockwise(blocks, held.shape)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            plain: list[Sequence[Tensor]] = []
            for parameter in (p for p in group["params"] if p.grad is not None):
                state = self.state[parameter]
                for kind in MOMENTS:
                    if kind not in state:
                        state[kind] = self.new_slot(kind, parameter)
                if "step" not in state:
                    device = parameter.device if group["fused"] else None
                    state["step"] = torch.zeros((), dtype=torch.float32, device=device)
                flat = shard(parameter).view(-1), shard(parameter.grad).reshape(-1)
                moments = [state[kind].view(-1) for kind in MOMENTS]
                if isinstance(moments[0], Blockwise) or moments[0].dtype != flat[0].dtype:
                    _update_low(*flat, state["step"], moments, group)
                else:
                    plain.append((*flat, state["step"], *moments))
            if plain:
                _update(plain, group)


def _update(parts: Sequence[Sequence[Any]], group: Facts) -> None:
    """A step of AdamW; each part: weights, gradient, step and both moments, in fp32."""
    weights, gradients, steps, first, second = map(list, zip(*parts, strict=True))
    adamw(
        *(weights, gradients, first, second, [], steps),
        **{name: group[name] for name in ("foreach", "fused", "lr", "weight_decay", "eps")},
        has_complex=any(weight.is_complex() for weight in weights),
        amsgrad=False,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        maximize=False,
    )


def _update_low(
    weights: Tensor, gradient: Tensor, step: Tensor, moments: Sequence[Any], group: Facts
) -> None:
    """The same for one parameter, flat, part by part, with moments that are decoded meanwhile."""
    salt = step.to(torch.int32) * _ODD[2]
    for start in range(0, len(weights), _AT_ONCE):
        part = slice(start, min(start + _AT_ONCE, len(weights)))
        slots = [moment[part] for moment in moments]
        values = [slot.read() if isinstance(slot, Blockwise) else slot.float() for slot in slots]
        _update([(weights[part], gradient[part], step.clone(), *values)], group)
        for slot, flat in zip(slots, values, strict=True):
            if isinstance(slot, Blockwise):
                slot.write(flat)
                slot.blocks.begun.clear()
            else:
                slot.copy_(_as_one(_rounded, flat, salt))
    step += 1


def _rounded(values: Tensor, salt: Tensor) -> Tensor:
    """fp32 `values` in bf16, up or down with the probability that keeps the mean.

    A hash of the value, its place and `salt`, a whole number, decides: a resumed run repeats it.
    """
    bits = values.view(torch.int32)
    places = torch.arange(len(bits), dtype=torch.int32, device=bits.device)
    noise = (places * _ODD[0] + salt).bitwise_xor_(bits).mul_(_ODD[1])
    # Mixed twice: with one product, a value that was rounded down was rounded down again.
    noise.bitwise_xor_(noise >> 15).mul_(_ODD[2])
    noise.bitwise_xor_(noise >> 13).mul_(_ODD[3]).bitwise_right_shift_(16).bitwise_and_(_LOW)
    return noise.add_(bits).bitwise_and_(~_LOW).view(torch.float32).to(torch.bfloat16)


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
        ends = torch.linspace(0.1, 1, 2 ** (decade + (not is_signed)) + 1, dtype=torch.float64)
        means = (ends[1:] + ends[:-1]) / 2 * 10.0 ** (decade - 6)
        values += [*means, *(-means if is_signed else ())]
    codes = torch.tensor(sorted(values), dtype=torch.float64)
    codes[0] = -1 if is_signed else codes[1]
    every = torch.arange(2**16).to(torch.int32).to(torch.int16).view(torch.bfloat16).double()
    nearest = torch.bucketize(every, (codes[1:] + codes[:-1]) / 2).to(torch.uint8)
    nearest[every.isinf()] = _LAST  # of a block of zeros
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


def _as_one(function: Callable[..., _Result], *given: Tensor) -> _Result:
    """`function` of `given`, in one kernel on a GPU: each operator moves all elements.

    Where there is no compiler, with a warning, the operators run one after the other.
    """
    device = given[0].device.type
    if device in _COMPILED_ON:
        try:
            return _compiled(function)(*given)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ImportError, OSError, SubprocessError) as error:
            log.warning(f"torch.compile failed; optim.state runs without it: {error!r:.200}")
            _COMPILED_ON.discard(device)
    return function(*given)


@cache
def _compiled(function: Callable[..., _Result]) -> Callable[..., _Result]:
    return torch.compile(function, fullgraph=True, dynamic=True)


@dataclass(frozen=True)
class _Blocks:
    """What is in memory: codes [block, BLOCK], scales [block], of `size` elements."""

    codes: Tensor
    scales: Tensor
    is_signed: bool
    size: int
    begun: dict[int, Tensor] = field(default_factory=dict)
    """The fp32 values of blocks that were written in part, by number, until the next step."""


class Blockwise(Tensor):
    """A tensor that is read and written as fp32, and stored as codes of 8 bits.

    Each block of BLOCK elements has a scale, its largest absolute value. Decoding and encoding
    again gives the same values. It can be copied from and to, flattened and cut; any other
    operator gets its values as a new tensor.
    """

    blocks: _Blocks
    first: int
    """Elements of `blocks` before it."""

    @staticmethod
    def __new__(cls, blocks: _Blocks, shape: Sequence[int], first: int = 0) -> Blockwise:
        """A view of `blocks` from element `first` on."""
        self: Any = torch.Tensor._make_wrapper_subclass(
            cls, shape, dtype=torch.float32, device=blocks.codes.device
        )
        self.blocks, self.first = blocks, first
        return cast("Blockwise", self)

    codes = property(lambda self: self.blocks.codes)
    scales = property(lambda self: self.blocks.scales)

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["codes", "scales"], None

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Blockwise({list(self.shape)})"

    @property
    def span(self) -> slice:
        return slice(self.first // BLOCK, -(-(self.first + self.numel()) // BLOCK))

    def read(self) -> Tensor:
        return self._whole()[self.first % BLOCK :][: self.numel()].view(self.shape)

    def write(self, values: Tensor) -> None:
        """Store `values`, of its shape.

        The fp32 values of a block that it begins or ends within are kept until the next step: the
        rest of the block may follow, and its scale is that of all.
        """
        blocks, span, flat, end = self.blocks, self.span, values.reshape(-1), self.first + self.numel()
        edges = {span.start} if self.first % BLOCK else set()
        edges |= {span.stop - 1} if end % BLOCK and end < blocks.size else set()
        if edges:
            whole = self._whole()
            whole[self.first % BLOCK :][: len(flat)].copy_(flat)
        else:
            whole = torch.nn.functional.pad(flat, (0, -len(flat) % BLOCK))
        for block in edges:
            blocks.begun[block] = whole[(block - span.start) * BLOCK :][:BLOCK].clone()
        _, nearest = _tables(blocks.is_signed, blocks.codes.device)
        whole = whole.to(blocks.codes.device, torch.float32)
        blocks.codes[span], blocks.scales[span] = _as_one(_nearest_codes, whole, nearest)

    def _whole(self) -> Tensor:
        """The values of its blocks in fp32, flat; 0 behind the end of the last one."""
        blocks, span = self.blocks, self.span
        table, _ = _tables(blocks.is_signed, blocks.codes.device)
        whole = _as_one(_products, blocks.codes[span], blocks.scales[span], table)
        whole[max(blocks.size - span.start * BLOCK, 0) :] = 0
        for block, values in blocks.begun.items():
            if span.start <= block < span.stop:
                whole[(block - span.start) * BLOCK :][:BLOCK] = values
        return whole

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Views share the codes; a copy decodes a part after the other."""
        this, given = args[0], args[1:]
        if func in _VIEWS:
            shape = given[0] if given else this.shape
            return Blockwise(this.blocks, [this.numel()] if -1 in shape else shape, this.first)
        if func is _aten.slice.Tensor:
            start, stop = [*given[1:3], None, None][:2]
            chosen = range(this.numel())[start:stop]
            return Blockwise(this.blocks, [len(chosen)], this.first + chosen.start)
        read = partial(tree_map_only, cls, cls.read)
        if func is not _aten.copy_.default:
            return func(*read(args), **read(kwargs or {}))
        flat, source = this.view(-1), given[0].reshape(-1)
        for start in range(0, this.numel(), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            values = read(source[part])
            if isinstance(this, cls):
                flat[part].write(values)
            else:
                flat[part].copy_(values, *given[1:], **(kwargs or {}))  # without waiting, if asked
        return this
