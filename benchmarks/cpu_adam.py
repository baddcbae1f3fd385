"""Is torch's fused AdamW as fast on the CPU as the one DeepSpeed builds for offloading?

    python benchmarks/cpu_adam.py --parameters 5e7 --threads 1 2

One flat fp32 tensor, as ZeRO offload has it; the optimizers take turns in one process. DeepSpeed's
is compiled at its first use, minutes on few cores, and is left out where there is no compiler.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

GROUP: dict[str, Any] = {"lr": 1e-3, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--parameters", type=float, default=5e7)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    gradient = torch.randn(int(options.parameters), generator=torch.Generator().manual_seed(0))
    optimizers = build(gradient)
    print(f"{options.parameters:.3g} parameters, milliseconds per step: median (least)")
    for threads in options.threads:
        torch.set_num_threads(threads)
        seconds = measure(optimizers, options.repeats)
        row = (f"{n} {1e3 * median(s):.1f} ({1e3 * min(s):.1f})" for n, s in seconds.items())
        print(f"threads {threads}:  " + "  ".join(row))
    print(f"largest difference of the weights: {difference(optimizers):.1e}")


def build(gradient: Tensor) -> dict[str, Optimizer]:
    """Each optimizer by name, over its own flat tensor with the same gradient."""

    def flat() -> list[Tensor]:
        weights = torch.zeros_like(gradient, requires_grad=True)
        weights.grad = gradient.clone()
        return [weights]

    optimizers: dict[str, Optimizer] = {
        "fused": AdamW(flat(), fused=True, **GROUP),
        "foreach": AdamW(flat(), foreach=True, **GROUP),
    }
    os.environ["DS_ACCELERATOR"] = "cpu"
    start = time.perf_counter()
    try:
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        optimizers["deepspeed"] = DeepSpeedCPUAdam(flat(), adamw_mode=True, **GROUP)
    except (ImportError, RuntimeError, AssertionError) as error:
        print(f"without DeepSpeed's: {error}")
    else:
        print(f"DeepSpeed's was ready after {time.perf_counter() - start:.0f} s")
    return optimizers


def measure(optimizers: Mapping[str, Optimizer], repeats: int) -> dict[str, list[float]]:
    """Seconds of each step; one step first to warm up."""
    for optimizer in optimizers.values():
        optimizer.step()
    seconds: dict[str, list[float]] = {name: [] for name in optimizers}
    for _ in range(repeats):
        for name, optimizer in optimizers.items():
            start = time.perf_counter()
            optimizer.step()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def difference(optimizers: Mapping[str, Optimizer]) -> float:
    """The largest distance of any optimizer's weights from those of the first."""
    weights: Sequence[Tensor] = [
        optimizer.param_groups[0]["params"][0].detach() for optimizer in optimizers.values()
    ]
    return max(float((w - weights[0]).abs().max()) for w in weights)


if __name__ == "__main__":
    main()
