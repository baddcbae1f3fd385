"""The settings of saving."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from training.duration import Cadence


class Save(BaseModel, extra="forbid", frozen=True):
    """When the state is written."""

    every: Annotated[
        Cadence | None,
        Field(description="How often to save; null: best and last only."),
    ] = None
    keep_last: Annotated[
        int,
        Field(
            ge=1,
            description="Periodic checkpoints kept; older ones are deleted.",
            json_schema_extra={"unless": {"save.every": [None]}},
        ),
    ] = 2
    keep_every: Annotated[
        Cadence | None,
        Field(
            description="Periodic checkpoints at such a distance stay for good; null: none does.",
            json_schema_extra={"unless": {"save.every": [None]}},
        ),
    ] = None
    keep_best: Annotated[
        int,
        Field(ge=0, description="Checkpoints of the best evaluations that are saved and kept."),
    ] = 1
    load_best: Annotated[
        bool,
        Field(
            description="End with the weights of the best evaluation: the last preview is theirs.",
            json_schema_extra={"unless": {"save.keep_best": [0]}},
        ),
    ] = False
    last: Annotated[bool, Field(description="Save when the run ends.")] = True
    on_signal: Annotated[
        bool, Field(description="Save when a signal or a limit of the machine ends the run.")
    ] = True
    # `async` is a word of Python, so that only the key can have that name.
    async_: Annotated[
        bool,
        Field(alias="async", description="Write while training goes on, from a copy in memory."),
    ] = True
    required: Annotated[
        bool, Field(description="A save that fails ends the run; else it is a warning.")
    ] = True
