"""Rank consistency check: the settings that must be identical on all ranks."""

from __future__ import annotations

import json

from launcher.config.provenance import Resolved

_PER_MACHINE = ("engine.nproc", "engine.threads", "engine.bind_cores", "loader.", "limits.")
"""Settings that may differ between machines: ranks, cores, memory."""


def facts(resolved: Resolved) -> dict[str, str]:
    """Settings as JSON, which the rendezvous compares between ranks.

    Ranks with different settings would wait for each other in collectives.
    """
    settings = {
        key: json.dumps(value.value, default=str)
        for key, value in resolved.values.items()
        if not key.startswith(_PER_MACHINE)
    }
    batching = resolved.batching
    return settings | {
        "global batch": str(batching.global_batch),
        "micro-batch": str(batching.micro_batch),
        "accumulation": str(batching.accumulation),
    }
