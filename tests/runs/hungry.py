"""A task of points on a ring; HUNGER in the environment sets its memory use."""

import os
import resource
import threading
from typing import ClassVar

import numpy as np
import psutil
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from gearshift.models.custom import CustomTask
from gearshift.training.resources.memory import container_memory

MIB = 2**20
KIND, _, AMOUNT = os.environ.get("HUNGER", "").partition(" ")
leaked = []
batches = 0


def allocate(rows):
    """Allocate memory as set by HUNGER, for a micro-batch of this many rows."""
    global batches
    batches += 1
    if KIND == "leak" and batches > 8 and not leaked:  # until its control group has so many bytes
        leaked.append(bytearray(int(AMOUNT) - container_memory().used))
    elif KIND == "activations":  # MiB per row, with a limit of 1000 MiB
        if batches == 1:
            limit = psutil.Process().memory_info().vms + 1000 * MIB
            resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        torch.empty(rows * int(AMOUNT) * MIB, dtype=torch.uint8)
    elif KIND == "gpu":  # MiB per row on a GPU, of which this process gets 1000 MiB
        memory = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(1000 * MIB / memory)
        torch.empty(rows * int(AMOUNT) * MIB, dtype=torch.uint8, device="cuda")
    elif KIND == "rank" and os.environ["RANK"] == AMOUNT and batches > 8 and rows > 4:
        # As with NCCL, where a rank that leaves waits for the others.
        torch.distributed.destroy_process_group = lambda *_: threading.Event().wait()
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


class Hungry(CustomTask):
    defaults: ClassVar = {"train.micro_batch": 8, "train.accumulation": 2, "train.max_steps": 12}

    def samples(self, split):
        points = np.random.default_rng([7, *split.encode()]).uniform(-1, 1, (256, 2))
        on_ring = abs(np.hypot(*points.T) - 0.6) < 0.25
        return TensorDataset(torch.from_numpy(points).float(), torch.from_numpy(on_ring).long())

    def build(self):
        return nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))

    def measure(self, model, batch):
        if model.training:
            allocate(len(batch["input"]))
        elif KIND == "evaluation" and batches > 4 and len(batch["input"]) > int(AMOUNT):
            torch.empty(2**60, dtype=torch.uint8)
        logits = model(batch["input"])
        return {"loss": functional.cross_entropy(logits, batch["target"], reduction="sum")}
