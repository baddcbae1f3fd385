"""Sizes and settings of the language family."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from gearshift.models.common.config import DataSection, FamilySection, column_field
from gearshift.models.common.data_reports import IGNORE


@dataclass(frozen=True)
class Size:
    """Dimensions of a transformer in the Llama layout."""

    width: int
    layers: int
    heads: int
    hidden: int
    vocabulary: int
    context: int

    @property
    def parameters(self) -> int:
        """Exact number of parameters; the output layer shares the token embedding."""
        layer = 4 * self.width**2 + 3 * self.width * self.hidden + 2 * self.width
        return self.vocabulary * self.width + self.layers * layer + self.width


SIZES = {
    "tiny": Size(64, 2, 4, 192, 272, 128),
    "small": Size(128, 4, 4, 384, 272, 256),
    "lite": Size(256, 6, 8, 704, 272, 1024),
    "full": Size(512, 8, 8, 1408, 272, 2048),
    "124M": Size(768, 12, 12, 2048, 50304, 1024),
    "350M": Size(1024, 24, 16, 2816, 50304, 2048),
    "1.3B": Size(2048, 24, 16, 5504, 50304, 2048),
}


PLANNED_BY_CONFIG = True
"""A pretrained model is planned from its config.json, without its weights."""


def context_of(folder: Path) -> int | None:
    """The longest sample of the pretrained model in `folder`, in tokens, by its config.json.

    None: there is no limit, or the file cannot be read, which loading reports. Disk access.
    """
    try:
        config = json.loads((folder / "config.json").read_bytes())
        length = config.get("max_position_embeddings") or config.get("n_positions")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return length if isinstance(length, int) and length > 0 else None


_ADAPTED: dict[str, Any] = {"unless": {"model.lora.rank": [None]}}


class Lora(FamilySection):
    """Low-rank adapters (LoRA): the pretrained weights stay frozen."""

    rank: Annotated[
        int | None,
        Field(ge=1, le=65536, json_schema_extra={"unless": {"model.pretrained": [None]}}),
    ] = None
    """Rank of the adapters of model.pretrained; null: train all weights."""
    alpha: int | None = Field(
        default=None,
        ge=1,
        le=65536,
        json_schema_extra=_ADAPTED,
    )
    """An adapter is scaled by alpha ÷ rank. Default: twice the rank."""
    dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        json_schema_extra=_ADAPTED,
    )
    """Dropout of the inputs of adapters."""
    layers: Annotated[list[str], Field(json_schema_extra=_ADAPTED)] = Field(default_factory=list)
    """Last parts of the names of layers that get an adapter, such as q_proj. Default: all linear
    layers but the output layer."""


_WHOLE: dict[str, Any] = {"only_if": {"model.stage": ["whole"]}}
_FROZEN: dict[str, Any] = {"only_if": {"model.stage": ["whole"], "model.lora.rank": [None]}}


class Model(FamilySection):
    """A decoder-only transformer in the Llama layout, or one from a local folder."""

    family: str = "language"
    """Model family."""
    size: str = Field(
        default="full",
        json_schema_extra={"only_if": {"model.pretrained": [None]}},
    )
    """Model size; see `list models`."""
    pretrained: str | None = None
    """Local folder of a causal language model that transformers can load, or OWNER/NAME of the
    Hugging Face hub with or without hf: and @REVISION; its size and tokenizer replace the built-in
    ones."""
    lora: Lora = Lora()
    quantize: Literal["nf4"] | None = None
    """Hold the frozen linear layers of model.pretrained in 4 bits, beside adapters of model.lora;
    null: in 16 bits, or with precision fp32 in 32. Needs bitsandbytes."""
    stage: Literal["whole", "lower"] = "whole"
    """whole: train the model. lower: train all but the upper half of its layers, which is frozen;
    with model.lora.rank, all adapters."""
    start: str | None = Field(
        default=None,
        json_schema_extra=_WHOLE,
    )
    """Initial weights of the model, instead of those of model.pretrained: a run folder of the same
    size, or a safetensors file. Default: none."""
    freeze_layers: int = Field(
        default=0,
        ge=0,
        le=10**4,
        json_schema_extra=_FROZEN,
    )
    """Layers that are not trained, from the first one, and with them the token embedding. 0: all
    are trained."""
    tokenizer: str = "bytes"
    """bytes, bpe (trained on the data or taken from model.start, stored in the run folder), or the
    path of a Hugging Face folder or tokenizer.json."""
    vocabulary: int | None = Field(
        default=None,
        ge=300,
        le=10**7,
    )
    """Entries of a bpe tokenizer. Default: that of the size, at least 512."""

    @property
    def parameters(self) -> int | None:
        """Exact number of parameters with these settings; None: files decide."""
        size = SIZES[self.size]
        if self.pretrained is not None or self.tokenizer not in ("bytes", "bpe"):
            return None
        entries = size.vocabulary
        if self.tokenizer == "bpe":
            entries = self.vocabulary or max(512, size.vocabulary)
        return replace(size, vocabulary=entries).parameters


COLUMNS = ("request", "context", "answer", "system", "messages", "text", IGNORE)
"""What a column of a table, or a key of JSON, may mean."""
Columns = list[Annotated[str, column_field(COLUMNS, "title=request")]]


class Data(DataSection):
    """Training text."""

    path: str | Annotated[list[str], Field(min_length=1)] = "embedded:python"
    """File or folder of text, JSON, CSV, Parquet or Arrow; hf:OWNER/NAME of a data set of the
    Hugging Face hub; or embedded:python, embedded:commands. Or several of them, all text or all
    conversations: --data A --data B."""
    weights: list[Annotated[float, Field(ge=0)]] | None = None
    """What each of several sources has of the samples taken in training, such as [0.7, 0.3]; a
    small one is repeated. Default: all samples are taken equally often."""
    answers: str | None = None
    """File whose line N answers line N of `path`. Default: none."""
    columns: Columns = Field(default_factory=list)
    """What columns and keys of rows mean that have no standard name; context follows the request,
    ignore leaves a column out."""
    seq_len: int | None = Field(default=None, ge=8, le=10**7)
    """Tokens per sample. Default: the context of the size."""
