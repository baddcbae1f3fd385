"""A small BART with random weights, saved in a folder."""

import torch
from tokenizers.processors import TemplateProcessing

from gearshift.models.common.subwords import train_byte_bpe

TEXTS = ["the old man finds a drum", "the young child paints an island"] * 3
VOCABULARY = 320
BART = {
    "vocab_size": VOCABULARY,
    "d_model": 48,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 72,
    "max_position_embeddings": 64,
}


def save_bart(folder, kind="BartForConditionalGeneration", **changes):
    """A small BART with a tokenizer.json of its own."""
    import transformers

    torch.manual_seed(7)
    model = getattr(transformers, kind)(transformers.BartConfig(**BART | changes)).eval()
    if hasattr(model, "final_logits_bias"):
        model.final_logits_bias.normal_()
    model.save_pretrained(folder)
    inner = train_byte_bpe(TEXTS, VOCABULARY, ("<s>", "<pad>", "</s>", "<mask>"))
    inner.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    inner.save(str(folder / "tokenizer.json"))
    return model
