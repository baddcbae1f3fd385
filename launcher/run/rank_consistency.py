"""What the ranks of one run must have been told alike, whichever machine they are on."""

from __future__ import annotations

import json

from launcher.config.provenance import Resolved

_OWN = ("engine.nproc", "engine.threads", "engine.bind_cores", "loader.", "limits.")
"""What a machine may have for itself: how many ranks, cores and how much memory."""


def facts(resolved: Resolved) -> dict[str, str]:
    """The settings by which ranks of different ideas would wait for each other, as JSON."""
    told = {
        key: json.dumps(value.value, default=str)
        for key, value in resolved.values.items()
        if not key.startswith(_OWN)
    }
    batching = resolved.batching
    return told | {
        "global batch": str(batching.global_batch),
        "micro-batch": str(batching.micro_batch),
        "accumulation": str(batching.accumulation),
    }
