"""Model FLOPs utilization (MFU), and the peak FLOP/s of known devices."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_TERA = 1e12

# Dense peaks in TFLOP/s of fp32 (CUDA or vector cores), tf32, bf16 and fp16 (tensor or matrix
# cores, fp32 accumulation; half of the sparse figure where a data sheet gives no other).
# None: the device lacks the format. Each name must appear as words in the name the driver reports.
# Sources are the vendors' data sheets unless a white paper is named.
_Peaks = tuple[float, "float | None", "float | None", "float | None"]
_PEAKS: dict[str, _Peaks] = {
    # NVIDIA HGX B200 data sheet, per GPU.
    "B200": (75, 1100, 2250, 2250),
    # NVIDIA H200 data sheet: SXM and NVL.
    "H200 NVL": (60, 417.5, 835.5, 835.5),
    "H200": (67, 494.5, 989.5, 989.5),
    # NVIDIA H100 data sheet: SXM ("H100 80GB HBM3"), PCIe and NVL.
    "H100 NVL": (60, 417.5, 835.5, 835.5),
    "H100 PCIe": (51, 378, 756.5, 756.5),
    "H100 80GB HBM3": (67, 494.5, 989.5, 989.5),
    # NVIDIA A100, A30, A40 and A10 data sheets.
    "A100": (19.5, 156, 312, 312),
    "A30": (10.3, 82, 165, 165),
    "A40": (37.4, 74.8, 149.7, 149.7),
    "A10": (31.2, 62.5, 125, 125),
    # NVIDIA L40S and L4 data sheets.
    "L40S": (91.6, 183, 362.05, 362.05),
    "L4": (30.3, 60, 121, 121),
    # NVIDIA T4 and V100 data sheets; neither has tf32 nor bf16 units.
    "T4": (8.1, None, None, 65),
    "V100S PCIE": (16.4, None, None, 130),
    "V100 PCIE": (14, None, None, 112),
    "V100 SXM2": (15.7, None, None, 125),
    "V100 SXM3": (15.7, None, None, 125),
    # NVIDIA Ampere GA102 white paper, appendix A and B.
    "RTX A6000": (38.7, 77.4, 154.8, 154.8),
    "RTX 3090": (35.6, 35.6, 71, 71),
    # NVIDIA Ada GPU architecture white paper, appendix A.
    "RTX 4090": (82.6, 82.6, 165.2, 165.2),
    # AMD Instinct data sheets; torch sees each half of an MI250X as a device.
    "MI300X": (163.4, 653.7, 1307.4, 1307.4),
    "MI250X": (23.95, None, 191.5, 191.5),
}
_COLUMN = {"fp32": 0, "tf32": 1, "bf16": 2, "fp16": 3}
# The name of a listed chip with one of these has other clocks, or is a part of the chip.
_OTHER = ("MIG", "Laptop", "Max", "Ti", "D")


def peak_flops(name: str, precision: str) -> float | None:
    """Dense peak in FLOP/s of the device with the driver name `name`; None: unknown."""
    words = name.replace("-", " ").lower().split()
    if any(word.lower() in words for word in _OTHER):
        return None
    for known, peaks in _PEAKS.items():
        wanted = known.lower().split()
        if _contains(words, wanted):
            peak = peaks[_COLUMN[precision]]
            return None if peak is None else peak * _TERA
    return None


def mfu(
    flops_per_sample: float | None,
    samples_per_s: float,
    device: torch.device,
    precision: str,
    world_size: int,
) -> float | None:
    """Model FLOPs utilization in [0, 1]: FLOP/s of the model over the peak of all devices.

    `flops_per_sample` counts forward and backward once, without recomputation; `samples_per_s`
    counts all ranks. None if either the model's FLOPs or the device's peak is unknown, as on a
    CPU. Source: Chowdhery et al., PaLM, 2022, appendix B.
    """
    name = _device_name(device)
    peak = None if name is None else peak_flops(name, precision)
    if peak is None or flops_per_sample is None:
        return None
    return flops_per_sample * samples_per_s / (peak * world_size)


def _contains(words: list[str], wanted: list[str]) -> bool:
    last = len(words) - len(wanted)
    return any(words[at : at + len(wanted)] == wanted for at in range(last + 1))


@lru_cache
def _device_name(device: torch.device) -> str | None:
    if device.type != "cuda":
        return None
    import torch

    return torch.cuda.get_device_name(device)
