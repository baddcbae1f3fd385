"""The doc_translation family's sizes and settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from models.common.config import Control, Fraction, OnBad


@dataclass(frozen=True)
class GlobalEncoder:
    """A DiT: a small picture of the whole page."""

    pixels: int
    patch: int
    width: int
    layers: int
    heads: int
    hidden: int


@dataclass(frozen=True)
class LocalEncoder:
    """A Swin transformer: the page without its margins, legible."""

    pixels: tuple[int, int]
    """Height and width."""
    width: int
    """Of the first stage; each further one has twice as much."""
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int
    ratio: int
    """Width of the hidden layer, in widths."""

    @property
    def output_width(self) -> int:
        """Width of what the last stage gives."""
        return self.width * 2 ** (len(self.depths) - 1)


@dataclass(frozen=True)
class Size:
    """The numbers of one model."""

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
    """The exact number of weights of the built model, the frozen mask token among them."""


SIZES = {
    "tiny": Size(
        GlobalEncoder(pixels=64, patch=16, width=64, layers=2, heads=4, hidden=128),
        LocalEncoder((96, 64), width=16, depths=(2, 2), heads=(2, 4), window=4, ratio=2),
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
        GlobalEncoder(pixels=224, patch=16, width=768, layers=12, heads=12, hidden=3072),
        LocalEncoder(
            (896, 672), width=128, depths=(2, 2, 14, 2), heads=(4, 8, 16, 32), window=7, ratio=4
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


class Model(BaseModel, extra="forbid", frozen=True):
    """Two image encoders, query transformers that gather what they see, and a text decoder."""

    family: Annotated[str, Field(description="The model family.")] = "doc_translation"
    size: Annotated[str, Field(description="The size; see `list models`.")] = "full"
    pretrained: Annotated[
        str | None,
        Field(
            description="A local folder with subfolders `global` (a DiT or BEiT), `local` (a Donut "
            "or Nougat encoder) and `decoder` (a BERT), each as transformers saves it; those that "
            "are there are loaded."
        ),
    ] = None
    partial: Annotated[
        list[Annotated[str, Field(pattern="^(global|local|decoder)$")]],
        Field(
            description="Subfolders of `pretrained` that may fill less than 95 % of the weights.",
            json_schema_extra={
                "unless": {"model.pretrained": [None]},
                "allowed": "some of global, local, decoder",
            },
        ),
    ] = []
    decoder_layers: Annotated[
        int | None, Field(ge=1, description="Layers of the decoder. Default: the size's own.")
    ] = None
    take_layers: Annotated[
        list[Annotated[int, Field(ge=0)]] | None,
        Field(
            description="Which layers of the pretrained decoder are taken, from 0 on; the others "
            "are dropped. Default: the first ones.",
            json_schema_extra={
                "unless": {"model.pretrained": [None]},
                "allowed": "layer numbers such as [0, 2, 4]",
            },
        ),
    ] = None
    queries: Annotated[
        int | None,
        Field(ge=2, description="Query tokens of each encoder. Default: the size's own."),
    ] = None
    dropout: Annotated[
        float, Field(ge=0, lt=1, description="Share of the decoder's activations left out.")
    ] = 0.1


class Data(BaseModel, extra="forbid", frozen=True):
    """Pages and their translations to learn from."""

    path: Annotated[
        str,
        Field(
            description="A folder in the DoTA layout, a JSONL file of paragraph pairs that are "
            "drawn as pages; or embedded:pages, embedded:cards."
        ),
    ] = "embedded:pages"
    source: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z][A-Za-z_-]*$",
            json_schema_extra={"allowed": "a language such as en"},
            description="The language of paragraphs that are drawn: their key.",
        ),
    ] = "en"
    target: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z][A-Za-z_-]*$",
            json_schema_extra={"allowed": "a language such as zh"},
            description="The language to translate into: folder `zh_mmd`, key `zh`; decides how "
            "BLEU cuts words.",
        ),
    ] = "zh"
    split: Annotated[
        Literal["file", "article"],
        Field(
            description="How a DoTA folder is split: as its split_dataset.json says, or anew, "
            "article by article."
        ),
    ] = "file"
    font: Annotated[
        str | None,
        Field(
            description="A font file that paragraphs are drawn with. Default: Pillow's own, which "
            "has Latin letters."
        ),
    ] = None
    paragraphs: Annotated[
        int, Field(ge=1, description="Paragraphs that are drawn on one page, at most.")
    ] = 4
    control: Control = "real"
    on_bad: OnBad = "stop"
    fraction: Fraction = 1.0
    seq_len: Annotated[
        int | None,
        Field(ge=8, description="Tokens of a translation. Default: the positions of the size."),
    ] = None
    max_new_tokens: Annotated[
        int | None,
        Field(
            ge=1,
            description="Tokens that are written for a page in evaluation: always so many, so that "
            "ranks stay in step. Default: data.seq_len.",
        ),
    ] = None
