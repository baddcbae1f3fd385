"""The trackers there are: what a person types for each, and where it lives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Tracker:
    """A way to show a run. Its module has `tracker(tracked, detail)`, which gives a Hook."""

    module: str
    form: str
    """How it is typed, for a person."""
    detail: str | None = None
    """What may stand behind its name and a colon, as a regular expression; None: nothing."""


# W&B takes no such letters in the name of a project, and no longer ones.
_PROJECT = r"([A-Za-z0-9._-]+/)?[^\s/\\#?%:,]{1,128}"
TRACKERS: Mapping[str, Tracker] = {
    "wandb": Tracker("training.trackers.wandb_callback", "wandb[:[ENTITY/]PROJECT]", _PROJECT),
    "tensorboard": Tracker("training.trackers.tensorboard", "tensorboard"),
}
LEGAL = ", ".join(tracker.form for tracker in TRACKERS.values())
PATTERN = "^({})$".format(
    "|".join(
        name if tracker.detail is None else f"{name}(:{tracker.detail})?"
        for name, tracker in TRACKERS.items()
    )
)
