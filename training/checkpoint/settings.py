"""The settings of saving."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from training.duration import Cadence


class Save(BaseModel, extra="forbid", frozen=True):
    """When the state is written."""

    every: Annotated[
        Cadence | None,
        Field(description="Interval between checkpoints; null: best and last only."),
    ] = None
    keep_last: Annotated[
        int,
        Field(
            ge=1,
            description="Periodic checkpoints to keep; older ones are deleted.",
            json_schema_extra={"unless": {"save.every": [None]}},
        ),
    ] = 2
    keep_every: Annotated[
        Cadence | None,
        Field(
            description="Keep a periodic checkpoint permanently at this interval; null: never.",
            json_schema_extra={"unless": {"save.every": [None]}},
        ),
    ] = None
    keep_best: Annotated[
        int,
        Field(ge=0, description="Checkpoints of the best evaluations to keep."),
    ] = 1
    load_best: Annotated[
        bool,
        Field(
            description="Load the weights of the best evaluation at the end, for the final "
            "preview.",
            json_schema_extra={"unless": {"save.keep_best": [0]}},
        ),
    ] = False
    last: Annotated[bool, Field(description="Save a checkpoint when the run ends.")] = True
    on_signal: Annotated[
        bool, Field(description="Save a checkpoint when a signal or a resource limit ends the run.")
    ] = True
    # `async` is a word of Python, so that only the key can have that name.
    async_: Annotated[
        bool,
        Field(
            alias="async", description="Write checkpoints in the background from a copy in memory."
        ),
    ] = True
    required: Annotated[
        bool, Field(description="End the run if a checkpoint cannot be saved; off: warning only.")
    ] = True
