"""Sizes, exact parameter counts and settings of the eeg_text family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from gearshift.models.common.config import DataSection, FamilySection, UnitOfChannels, column_field
from gearshift.models.common.data_reports import IGNORE

KERNEL = 5
"""Taps of both convolutions of a region, each of stride 2."""
TOKEN_SAMPLES = 4
"""EEG samples per token: two strides of 2."""
HEAD_HIDDEN = 1472
CHANNELS = 105


@dataclass(frozen=True)
class Size:
    """The dimensions of encoder, masked head and text decoder."""

    width: int
    layers: int
    heads: int
    hidden: int
    global_layers: int
    head_hidden: int
    text_width: int
    text_layers: int
    text_heads: int
    text_hidden: int
    vocabulary: int
    text_positions: int
    """Rows of the position table, of which BART does not use the first two."""

    parameters: int
    """The exact number of parameters of encoder and text decoder."""

    @property
    def text_context(self) -> int:
        """The number of tokens that the decoder has positions for."""
        return self.text_positions - 2


SIZES = {
    "tiny": Size(
        16,
        1,
        2,
        32,
        1,
        64,
        64,
        1,
        4,
        128,
        272,
        64,
        316_248,
    ),
    "lite": Size(
        128,
        2,
        4,
        512,
        3,
        HEAD_HIDDEN,
        768,
        6,
        12,
        1536,
        50265,
        1026,
        145_653_184,
    ),
    "full": Size(
        256,
        4,
        4,
        1024,
        3,
        HEAD_HIDDEN,
        768,
        6,
        12,
        1536,
        50265,
        1026,
        352_138_112,
    ),
}


_TEXT: dict[str, Any] = {"only_if": {"model.stage": ["text"]}}
PathOfText = Annotated[str | None, Field(json_schema_extra=_TEXT)]


class Model(FamilySection):
    """Ten regional encoders and a global one; with a text decoder, or the masked head."""

    family: str = "eeg_text"
    """Model family."""
    size: str = "full"
    """Model size; see `list models`."""
    stage: Literal["text", "encoder"] = "text"
    """text: train encoder and text decoder. encoder: train the encoder on masked EEG, without
    text."""
    encoder: PathOfText = None
    """Initial weights of the encoder: the run folder of a stage encoder, or a safetensors file.
    Default: random."""
    start: PathOfText = None
    """Initial weights of the model: the run folder of a stage text, or a safetensors file. Default:
    random."""
    pretrained: PathOfText = None
    """Local folder of a BART in the layout of transformers, or hf:OWNER/NAME with or without
    @REVISION: its decoder, with sizes, weights and tokenizer, replaces the text decoder of the
    size."""
    freeze_encoder: bool = Field(default=False, json_schema_extra=_TEXT)
    """Train the text decoder only."""
    unfreeze: Annotated[
        Literal["none", "top"],
        Field(
            json_schema_extra={"only_if": {"model.stage": ["text"], "model.freeze_encoder": [True]}}
        ),
    ] = "none"
    """Parts of a frozen encoder to train. top: the layers that join the ten regions."""
    recompute_regions: bool = False
    """Recompute the layers of the ten regions in the backward pass; they hold most activations."""
    tokenizer: Annotated[
        Literal["bytes", "bpe"],
        Field(json_schema_extra={"only_if": {"model.stage": ["text"], "model.pretrained": [None]}}),
    ] = "bpe"
    """bpe: trained on the training sentences, stored in the run folder. With `pretrained`, the
    folder's own."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout of all layers."""
    word_dropout: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        json_schema_extra=_TEXT,
    )
    """Share of the decoder's training inputs to mask."""
    mask_share: Annotated[
        float, Field(gt=0, lt=1, json_schema_extra={"only_if": {"model.stage": ["encoder"]}})
    ] = 0.15
    """Share of a recording's tokens to mask."""


COLUMNS = ("onset_s", "duration_s", "text")
"""The columns of a table of sentences."""
Columns = list[Annotated[str, column_field((*COLUMNS, IGNORE), "start=onset_s")]]


class Data(DataSection):
    """EEG to train on, with the sentences that were read."""

    path: str = "embedded:reading"
    """A ZuCo .mat file, a recording in a format that MNE reads (EDF, BrainVision, FIF, ...),
    or a folder of any of them; or embedded:reading, embedded:reading-small."""
    seq_len: int = Field(
        default=800,
        ge=64,
        le=10**6,
        multiple_of=TOKEN_SAMPLES,
    )
    """EEG samples at 500 Hz in a window; longer segments have several windows."""
    windows: int = Field(default=16, ge=1, le=10**5)
    """Maximum windows per segment; longer segments are cropped to the windows in their center."""
    text_len: int = Field(
        default=128,
        ge=4,
        le=65536,
        json_schema_extra=_TEXT,
    )
    """Maximum tokens per sentence, with the end token; longer sentences are truncated."""
    split: Literal["sentence", "subject+sentence"] = "sentence"
    """Unit of the split: sentences only, or readers too."""
    channels: str | None = None
    """JSON object or CSV of two columns that maps channel names to electrodes. Default: the names
    of the 10-10 system and of EGI."""
    texts: str | None = None
    """JSON object or CSV of two columns that maps event names to sentences. Default: a .tsv or .csv
    file with the recording's name, or that of BIDS."""
    columns: Columns = Field(default_factory=list)
    """What columns of tables beside recordings mean whose names are not known, such as
    "start=onset_s"; other meanings: duration_s, text, ignore."""
    unit: UnitOfChannels = None
    line_hz: int = Field(
        default=50,
        ge=50,
        le=60,
        json_schema_extra={"unit": "Hz"},
    )
    """Mains frequency to filter out."""
