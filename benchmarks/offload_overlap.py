"""How much of the update and of the copies of offloaded weights does an engine hide?

    python -m benchmarks.offload_overlap

The thread and the hooks are those of engines/overlapped_update.py; engines/zero/offload_update.py
takes the same order, here with one chunk per block. Times are simulated: threads that sleep stand
for the stream of kernels and that of copies of a GPU, and the optimizer sleeps as long as a CPU
would compute. A step copies the gradients of a block to the host after its backward pass, which
takes twice as long as its forward pass. Contenders differ in what follows the backward pass:

- after: update, then copy all weights; then the next pass begins. DeepSpeed's own step.
- prefetched: update; the next pass copies weights block by block. fsdp-offload without overlap.
- fsdp-offload: the next pass begins; each block waits for its update, then copies its weights.
- zero2-offload: the next pass begins; weights are copied after the update of their block, which
  waits for both. With one process: several would gather the weights before the pass.

Hidden is the share of what the first contender takes beyond its passes. Nothing hides what an
update takes longer than a forward pass: it starts when the norm of all gradients is known, which
decides how much they are clipped, and the backward pass needs all weights.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import Module, ModuleList, Parameter
from torch.optim import SGD

from engines.overlapped_update import OverlappedUpdate

OVERLAPPED = ("fsdp-offload", "zero2-offload")
CONTENDERS = ("after", "prefetched", *OVERLAPPED)


@dataclass(frozen=True)
class Times:
    """Seconds for one block."""

    forward_s: float
    copy_s: float
    update_s: float


class Device:
    """A stream of kernels and one of copies, in which each piece of work sleeps."""

    def __init__(self, stack: ExitStack):
        self._kernels, self._copies = (
            stack.enter_context(ThreadPoolExecutor(1)) for _ in ("kernels", "copies")
        )
        self._last: Future[None] | None = None

    def compute(self, seconds: float, after: Future[None] | None = None) -> None:
        """Launch a kernel that starts when `after` has ended."""
        self._last = self._kernels.submit(_sleep, seconds, after)

    def copy(self, seconds: float) -> Future[None]:
        """Launch a copy that needs nothing of the kernels."""
        return self._copies.submit(_sleep, seconds, None)

    def copy_result(self, seconds: float) -> None:
        """Launch a copy of what the last kernel computes."""
        self._copies.submit(_sleep, seconds, self._last)

    def wait(self) -> None:
        """Wait for both streams."""
        self._kernels.submit(_sleep, 0.0, None).result()
        self._copies.submit(_sleep, 0.0, None).result()


def _sleep(seconds: float, after: Future[None] | None) -> None:
    if after is not None:
        after.result()
    time.sleep(seconds)


class Block(Module):
    """Computes nothing for the time that a block takes."""

    arrived: Future[None] | None = None
    """The copy of the weights after their update."""

    def __init__(self, device: Device, times: Times, *, copies: bool):
        super().__init__()
        self.weight = Parameter(torch.zeros(1))
        self._device, self._times, self._copies = device, times, copies

    def forward(self) -> None:
        """Copy the weights if they are on the host, and compute."""
        arrived = self._device.copy(self._times.copy_s) if self._copies else self.arrived
        self._device.compute(self._times.forward_s, arrived)


class SleepingOptimizer(SGD):
    """Updates for the time that a CPU takes."""

    def __init__(self, parameters: Any, update_s: float, follow: Callable[[Parameter], None]):
        super().__init__(parameters, lr=0.0)
        self._update_s, self._follow = update_s, follow

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Sleep for each parameter, and call what follows its update."""
        for group in self.param_groups:
            for parameter in group["params"]:
                time.sleep(self._update_s)
                self._follow(parameter)


def step_s(contender: str, times: Times, blocks: int, steps: int) -> float:
    """Seconds per step; the first one only fills the streams."""
    with ExitStack() as stack:
        device = Device(stack)
        copies = contender in ("prefetched", "fsdp-offload")
        model = ModuleList(Block(device, times, copies=copies) for _ in range(blocks))
        block_of: dict[Any, Any] = {block.weight: block for block in model}

        def follow(parameter: Parameter) -> None:
            if contender == "zero2-offload":
                block_of[parameter].arrived = device.copy(times.copy_s)

        optimizer = SleepingOptimizer(model.parameters(), times.update_s, follow)
        update = None
        if contender in OVERLAPPED:
            owned = {block: list(block.parameters()) for block in model}
            update = OverlappedUpdate(optimizer, owned, compiled=False)
            stack.callback(update.close)
        begin = 0.0
        for number in range(steps + 1):
            if number == 1:
                begin = time.perf_counter()
            for block in model:
                block()
            for block in reversed(model):
                device.compute(2 * times.forward_s)
                device.copy_result(times.copy_s)
                block.weight.grad = torch.zeros(1)
            device.wait()
            if update is None:
                optimizer.step()
            else:
                update.start(None)
            if contender == "after":
                device.copy(times.copy_s * blocks).result()
        return (time.perf_counter() - begin) / steps


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--blocks", type=int, default=24)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--forward", type=float, default=4.0, help="ms of a block's forward pass")
    parser.add_argument("--copy", type=float, default=1.0, help="ms to copy a block's weights")
    parser.add_argument(
        "--updates", type=float, nargs="+", default=[1.0, 2.0, 4.0, 8.0], help="ms of a block"
    )
    options = parser.parse_args()
    passes = 1e3 * step_s(
        "after", Times(options.forward / 1e3, 0, 0), options.blocks, options.steps
    )
    print(f"{options.blocks} blocks, passes {passes:.0f} ms, copy of a block {options.copy:g} ms\n")
    hides = " | ".join(f"{contender} hides" for contender in OVERLAPPED)
    print("| update ms | " + " ms | ".join(CONTENDERS) + f" ms | {hides} |")
    print("|---:|" + "---:|" * (len(CONTENDERS) + len(OVERLAPPED)))
    for update in options.updates:
        times = Times(options.forward / 1e3, options.copy / 1e3, update / 1e3)
        found = {c: 1e3 * step_s(c, times, options.blocks, options.steps) for c in CONTENDERS}
        beyond = found["after"] - passes
        cells = [f"{found[contender]:.0f}" for contender in CONTENDERS]
        cells += [f"{(found['after'] - found[c]) / beyond:.0%}" for c in OVERLAPPED]
        print(f"| {update * options.blocks:g} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
