"""The text decoder of a BART in a local folder: its size, tokenizer and weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gearshift.models.base import DataError
from gearshift.models.common.hugging_face import (
    CONFIG,
    KEY,
    compare,
    load_errors,
    read_config,
    stored_tensors,
)
from gearshift.models.common.subwords import TOKENIZER_FILE, load_tokenizer
from gearshift.models.eeg_text.config import Size
from gearshift.models.eeg_text.texts import BartTokenizer

if TYPE_CHECKING:
    from gearshift.models.eeg_text.network import TextDecoder

ALLOWED = (
    f"a local folder of transformers with {CONFIG}, *.safetensors and {TOKENIZER_FILE} of a BART, "
    "such as facebook/bart-base"
)
_BART = {
    "model_type": "bart",
    "activation_function": "gelu",
    "scale_embedding": False,
    "tie_word_embeddings": True,
}
"""What the decoder of this family has in common with those that it takes over."""


def size_of(folder: Path, size: Size) -> Size:
    """`size` with the text decoder of the BART in `folder`. Reads the disk; raises DataError."""
    config = read_config(folder, ALLOWED)
    for name, value in _BART.items():
        actual = getattr(config, name, None)
        if actual != value:
            raise DataError(
                f"the {name} of {KEY} '{folder}' is {actual}, not {value}",
                where=str((folder / CONFIG).absolute()),
                allowed=ALLOWED,
            )
    return replace(
        size,
        text_width=config.d_model,
        text_layers=config.decoder_layers,
        text_heads=config.decoder_attention_heads,
        text_hidden=config.decoder_ffn_dim,
        vocabulary=config.vocab_size,
        text_positions=config.max_position_embeddings + 2,
    )


def tokenizer_of(folder: Path, size: Size) -> BartTokenizer:
    """The tokenizer of the BART in `folder`. Reads the disk; raises DataError."""
    inner = load_tokenizer(folder / TOKENIZER_FILE, KEY)
    return BartTokenizer(inner, size.vocabulary, is_pretrained=True)


def load(decoder: TextDecoder, folder: Path) -> str:
    """Fill `decoder`, except its bridge, by exact names; returns a summary.

    One tensor at a time is in memory. Reads the disk; raises DataError if a tensor is missing,
    unknown or of another shape.
    """
    with load_errors(folder, ALLOWED):
        tensors = stored_tensors(folder)
    stored = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    if "shared.weight" in stored:  # with the encoder
        stored.setdefault("decoder.embed_tokens.weight", stored["shared.weight"])
    targets = {f"decoder.{name}": tensor for name, tensor in decoder.text.named_parameters()}
    if "final_logits_bias" in stored:  # BartModel has none
        assert decoder.bias is not None, "it is for pretrained weights"
        targets["final_logits_bias"] = decoder.bias
    # Other heads and the encoder are not read.
    for name in list(stored):
        if name not in targets and not name.startswith("decoder."):
            del stored[name]
    differences = compare(targets, stored).render()
    if differences:
        raise DataError(
            f"the weights in {KEY} '{folder}' do not fit its {CONFIG}: {differences}",
            where=str((folder / CONFIG).absolute()),
            allowed="*.safetensors with exactly the tensors of its decoder; its encoder is not "
            "read",
            hint="save it with  model.save_pretrained(FOLDER)  of transformers",
        )
    for name, target in targets.items():
        stored[name].read_into(target)
    return f"loaded {len(targets)}/{len(targets)} tensors from {folder}"
