"""Small encoder-decoder models of transformers with random weights, saved in folders."""

import json

import torch
from tokenizers.processors import TemplateProcessing

from models.common.subwords import train_byte_bpe

TEXTS = ["the old man finds a drum", "the young child paints an island"] * 3
VOCABULARY = 320
SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
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
T5 = {
    "vocab_size": VOCABULARY,
    "d_model": 48,
    "d_kv": 12,
    "d_ff": 72,
    "num_layers": 1,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "pad_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
T5_1_1 = {"tie_word_embeddings": False, "feed_forward_proj": "gated-gelu"}
LONGFORMER = {"attention_window": 8, "max_decoder_position_embeddings": 64}
PROPHET = {
    **{name: 48 for name in ("hidden_size", "encoder_ffn_dim", "decoder_ffn_dim")},
    **{"vocab_size": VOCABULARY, "num_encoder_layers": 1, "num_decoder_layers": 2},
    **{"num_encoder_attention_heads": 2, "num_decoder_attention_heads": 4},
    **{"max_position_embeddings": 64, "pad_token_id": 1, "eos_token_id": 2},
}
KINDS = {
    "bart": BART,
    "mbart": BART | {"scale_embedding": True, "decoder_start_token_id": 0},
    "pegasus": BART | {"pad_token_id": 1, "eos_token_id": 2},
    "marian": BART | {"pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
    "blenderbot": BART,
    "led": BART | LONGFORMER,
    "m2m_100": BART,
    "prophetnet": PROPHET,
    "t5": T5,
    "mt5": T5,
    "longt5": T5,
    "switch_transformers": T5 | {"num_experts": 2, "num_sparse_decoder_layers": 1},
}


def untied_output(model):
    """Give a T5 an output layer of its own, as T5 1.1 has."""
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    getattr(model, "all_tied_weights_keys", {}).pop("lm_head.weight", None)  # transformers 5


def save_bart(folder, kind="BartForConditionalGeneration", **changes):
    """A small BART with a tokenizer.json of its own, without a tokenizer_config.json."""
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


def save_tokenizer(folder, **settings):
    """A tokenizer of TEXTS that ends sentences as T5 does, with its settings."""
    inner = train_byte_bpe(TEXTS, VOCABULARY, SPECIALS)
    inner.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    inner.save(str(folder / "tokenizer.json"))
    found = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"}
    found |= {"eos_token": "</s>", "unk_token": "<unk>", **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(found))


def save_model(folder, kind, change=None, **settings):
    """The model of a model_type of KINDS in `folder`, with a tokenizer."""
    from transformers import CONFIG_MAPPING, AutoModelForSeq2SeqLM

    torch.manual_seed(7)
    config = CONFIG_MAPPING[kind](**KINDS[kind] | settings)
    model = AutoModelForSeq2SeqLM.from_config(config).eval()
    if hasattr(model, "final_logits_bias"):
        model.final_logits_bias.normal_()
    if change is not None:
        change(model)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return model
