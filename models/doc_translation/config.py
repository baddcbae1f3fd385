"""Sizes and settings of the doc_translation family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from gearshift.models.common.config import DataSection, StagedModel


@dataclass(frozen=True)
class GlobalEncoder:
    """Dimensions of a DiT over the whole page at low resolution."""

    pixels: int
    width: int
    layers: int
    heads: int
    hidden: int


DIT_PATCH = 16
"""Pixels of a patch of the global encoder."""
SWIN_PATCH = 4
"""Pixels of a patch before the first stage of the local encoder."""


@dataclass(frozen=True)
class LocalEncoder:
    """Dimensions of a Swin transformer over the page without margins at high resolution."""

    pixels: tuple[int, int]
    """Height and width."""
    width: int
    """Width of the first stage; it doubles in each further stage."""
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int
    ratio: int
    """Width of the hidden layer as a multiple of the stage width."""

    @property
    def output_width(self) -> int:
        """Width of the last stage."""
        return self.width * 2 ** (len(self.depths) - 1)


@dataclass(frozen=True)
class Size:
    """Dimensions of a model."""

    whole: GlobalEncoder
    local: LocalEncoder
    width: int
    heads: int
    query_hidden: int
    queries: int
    decoder_layers: int
    decoder_hidden: int
    vocabulary: int
    positions: int
    parameters: int
    """Exact number of parameters, including the frozen mask token."""


SIZES = {
    "tiny": Size(
        GlobalEncoder(
            pixels=64,
            width=64,
            layers=2,
            heads=4,
            hidden=128,
        ),
        LocalEncoder(
            (96, 64),
            width=16,
            depths=(2, 2),
            heads=(2, 4),
            window=4,
            ratio=2,
        ),
        width=64,
        heads=4,
        query_hidden=128,
        queries=8,
        decoder_layers=1,
        decoder_hidden=128,
        vocabulary=512,
        positions=128,
        parameters=338_877,
    ),
    "full": Size(
        GlobalEncoder(
            pixels=224,
            width=768,
            layers=12,
            heads=12,
            hidden=3072,
        ),
        LocalEncoder(
            (896, 672),
            width=128,
            depths=(2, 2, 14, 2),
            heads=(4, 8, 16, 32),
            window=7,
            ratio=4,
        ),
        width=512,
        heads=8,
        query_hidden=1024,
        queries=256,
        decoder_layers=3,
        decoder_hidden=2048,
        vocabulary=52_000,
        positions=1536,
        parameters=208_941_977,
    ),
}


class Model(StagedModel):
    """Two image encoders with query transformers, and a text decoder."""

    family: str = "doc_translation"
    """Model family."""
    size: str = "full"
    """Model size; see `list models`."""
    pretrained: str | None = None
    """Local folder, or hf:OWNER/NAME with or without @REVISION, with one or more of the subfolders
    `global` (DiT or BEiT), `local` (Donut or Nougat encoder) and `decoder` (BERT), each in the
    layout of transformers."""
    partial: list[Annotated[str, Field(pattern="^(global|local|decoder)$")]] = Field(
        default_factory=list,
        json_schema_extra={
            "unless": {"model.pretrained": [None]},
            "allowed": "some of global, local, decoder",
        },
    )
    """Subfolders of `pretrained` that may provide less than 95 % of the weights."""
    decoder_layers: int | None = Field(default=None, ge=1, le=1000)
    """Decoder layers. Default: that of the size."""
    take_layers: Annotated[
        list[Annotated[int, Field(ge=0, le=1000)]] | None,
        Field(
            json_schema_extra={
                "unless": {"model.pretrained": [None]},
                "allowed": "layer numbers, for example [0, 2, 4]",
            }
        ),
    ] = None
    """Layers of the pretrained decoder to load, numbered from 0; the others are dropped. Default:
    the first ones."""
    queries: int | None = Field(default=None, ge=2, le=65536)
    """Query tokens per encoder. Default: that of the size."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout probability in the decoder."""

    @property
    def parameters(self) -> int | None:
        """Exact number of parameters of a whole model with these settings; None: files decide."""
        if self.pretrained is not None:
            return None
        size = SIZES[self.size]
        d = size.width
        hidden = size.decoder_hidden
        layer = 8 * (d**2 + d) + 2 * d * hidden + hidden + d + 6 * d
        layers = (self.decoder_layers or size.decoder_layers) - size.decoder_layers
        queries = (self.queries or size.queries) - size.queries
        return size.parameters + layers * layer + queries * 2 * d


class Data(DataSection):
    """Pages and their translations."""

    path: str = "embedded:pages"
    """Folder in the DoTA layout; or embedded:pages, embedded:cards."""
    target: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z][A-Za-z_-]*$",
            json_schema_extra={"allowed": "a language code, for example zh"},
        ),
    ] = "zh"
    """Target language: folder `zh_mmd`; selects the tokenizer of BLEU."""
    split: Literal["file", "article"] = "file"
    """Split of a DoTA folder: file (its split_dataset.json), or article (a new split by
    article)."""
    seq_len: int | None = Field(default=None, ge=8, le=65536)
    """Tokens per translation. Default: the positions of the size."""
    max_new_tokens: int | None = Field(default=None, ge=1, le=65536)
    """Tokens generated per page in evaluation, always exactly this many. Default: data.seq_len."""
    beams: int = Field(default=4, ge=1, le=1000)
    """Beams of the beam search at the end of a run, beside greedy decoding; 1: no beam search."""
