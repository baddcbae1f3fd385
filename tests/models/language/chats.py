"""Chat templates, and tokenizers of transformers of each kind with one of them."""

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from gearshift.models.language.subword_tokenizers import load

# « and » are around an answer with what ends it: nothing, or the marks of transformers.
TEMPLATES = {
    "zephyr": "{% for m in messages %}{{ '<|' + m.role + '|>\n' }}"
    "{% if m.role == 'assistant' %}«{{ m.content + eos_token }}»{% else %}{{ m.content + eos_token }}{% endif %}"
    "{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
    "llama": "{% for m in messages %}{% if m.role == 'assistant' %}«{{ ' ' + m.content + ' ' + eos_token }}»"
    "{% else %}{{ bos_token + '[INST] ' + m.content + ' [/INST]' }}{% endif %}{% endfor %}",
    "chatml": "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' %}«{{ m.content + '<|im_end|>' }}»{% else %}{{ m.content + '<|im_end|>' }}"
    "{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "opens <think>": "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|assistant|>' }}"
    "«{{ m.content.split('</think>')[-1] + eos_token }}»{% else %}{{ '<|user|>' + m.content }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|><think>\n' }}{% endif %}",
    "drops reasoning": "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role != 'assistant' %}{{ m.content + '<|im_end|>' }}"
    "{% elif loop.last %}«{{ '<think>\n\n</think>\n\n' + m.content + '<|im_end|>' }}»"
    "{% else %}{{ m.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "ends nothing": "{% for m in messages %}{{ m.role + ': ' }}{% if m.role == 'assistant' %}«{{ m.content }}»"
    "{% else %}{{ m.content }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}",
}
ADDED = ("<|user|>", "<|assistant|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
_SPECIAL = ("<unk>", "<s>", "</s>")
_TEXTS = ["user: Hello, number 12 says yes\nassistant: word of <b>bold</b> text [INST] [/INST]"] * 4
KINDS = ("byte-level", "metaspace", "prepend", "unigram")


def plain(template):
    return template.replace("«", "").replace("»", "")


def marked(template):
    return template.replace("«", "{% generation %}").replace("»", "{% endgeneration %}")


def library_tokenizer(kind):
    """As of GPT-2, of Llama 3's predecessors (Metaspace; normalizer Prepend), and of T5."""
    inner = Tokenizer(
        models.Unigram() if kind == "unigram" else models.BPE(unk_token="<unk>", byte_fallback=True)
    )
    letters = [chr(code) for code in range(32, 127)]
    if kind == "byte-level":
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        letters = pre_tokenizers.ByteLevel.alphabet()
    elif kind == "prepend":
        inner.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        parts = [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
        inner.decoder = decoders.Sequence(parts)
    else:
        inner.pre_tokenizer = pre_tokenizers.Metaspace()
        inner.decoder = decoders.Metaspace()
    letters += ["\n", "▁"]
    options = {"vocab_size": 420, "initial_alphabet": letters, "show_progress": False}
    special = [*_SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256) if kind == "prepend")]
    if kind == "unigram":
        trainer = trainers.UnigramTrainer(special_tokens=special, unk_token="<unk>", **options)
    else:
        trainer = trainers.BpeTrainer(
            special_tokens=special, **options | {"vocab_size": 420 + len(special)}
        )
    inner.train_from_iterator(_TEXTS, trainer)
    return inner


def chat_tokenizer(folder, kind, template):
    """The tokenizer of a folder of transformers, as a run loads it."""
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    theirs = PreTrainedTokenizerFast(
        tokenizer_object=library_tokenizer(kind), chat_template=template, **names
    )
    theirs.add_tokens(
        [AddedToken(token, normalized=False, special="think" not in token) for token in ADDED]
    )
    theirs.save_pretrained(folder)
    return load(folder)
