import json
import random

import pytest
import torch
from safetensors.torch import save_file

from gearshift.models.base import DataError
from gearshift.models.common import subwords
from gearshift.models.language import subword_tokenizers as bpe
from gearshift.models.language.hugging_face import write_tokenizer
from gearshift.models.language.tokenizer import TAGS, ByteTokenizer
from tests.models.tasks import saving_context

transformers = pytest.importorskip("transformers")

TEXT = "\n\n".join(f"Sentence {i} tells that {i} is {i % 7}." for i in range(200))
TEXTS = [
    "",
    " ",
    "def main():\n    return 0\n\t\r\n",
    "<command>ls -l</command><file>a\n</file> ünïcode 日本 \U0001f600 e\u0301 \u00a0\u200b\ufeff",
    "<system<system></system>>< command>",
    "it speaks of <|end|>, <|pad|>, <|start|> and <|reserved_0|>",
    "\x00\x01\x7f\x80\xad\xa0 0123456789  two  blanks   ",
    "don't we'll I'm 'tis " * 3,
]


def drawn_text(seed):
    """Random letters of Unicode, and tags."""
    draw = random.Random(seed)
    parts = [chr(draw.choice((draw.randrange(256), draw.randrange(0xD800)))) for _ in range(300)]
    parts += [draw.choice(TAGS) for _ in range(20)]
    draw.shuffle(parts)
    return "".join(parts)


def export(task, model, folder):
    """Export a model as the launcher does."""
    folder.mkdir()
    task.write_hugging_face(folder)
    tensors = {task.hugging_face_name(n): p.detach() for n, p in model.named_parameters()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def load_model(folder):
    model, loading_info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, output_loading_info=True
    )
    assert not any(
        loading_info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
    )
    return model.eval()


def load_tokenizer(folder):
    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_logits_are_bit_equal(make_task, tmp_path, size):
    torch.manual_seed(0)
    task = make_task(size=size, seq_len=96)
    model = task.build().eval()
    for parameter in model.parameters():
        if parameter.dim() == 1:  # norms are initialized with ones, which hides a swap
            torch.nn.init.normal_(parameter, 1.0, 0.1)
    theirs = load_model(export(task, model, tmp_path / "out"))
    tokens = torch.randint(0, task.source.size.vocabulary, (2, 96))
    with torch.no_grad():
        assert torch.equal(model(tokens), theirs(tokens).logits)
    assert theirs.dtype == torch.float32
    assert theirs.config.max_position_embeddings == 96
    for config in (theirs.config, theirs.generation_config):
        assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (256, 257, 258)


@pytest.fixture(scope="module")
def byte_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bytes")
    write_tokenizer(folder, ByteTokenizer(), 128, is_chat=False)
    # AutoTokenizer uses it if the folder contains a model.
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return folder


def test_byte_tokens_and_texts_are_equal(byte_folder):
    ours, theirs = ByteTokenizer(), load_tokenizer(byte_folder)
    for text in (*TEXTS, *(drawn_text(seed) for seed in range(5))):
        tokens = theirs(text)["input_ids"]
        assert tokens == ours.encode(text).tolist() and theirs.decode(tokens) == text
    tokens = [257, 0xC3, 104, 0xE2, 0x82, 105, 259, 0xF0, 258, 256, 270]
    assert theirs.decode(tokens, skip_special_tokens=True) == ours.decode(tokens)


def test_a_trained_tokenizer_gives_the_same_tokens(make_task, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    trained = bpe.train([TEXT], 400)
    subwords.save_tokenizer(trained.inner, saving_context(run))
    task = make_task(run, tokenizer="bpe", vocabulary=400)
    (tmp_path / "out").mkdir()
    task.write_hugging_face(tmp_path / "out")
    theirs = load_tokenizer(tmp_path / "out")
    for text in (*TEXTS, drawn_text(9)):
        tokens = theirs(text)["input_ids"]
        assert tokens == trained.encode(text).tolist() and theirs.decode(tokens) == text
    assert theirs.eos_token_id == trained.end


def test_a_missing_tokenizer_or_pretrained_folder_is_an_error(make_task, tmp_path, folder):
    for run in (None, tmp_path / "run"):
        task = make_task(run, tokenizer="bpe")
        with pytest.raises(DataError, match="tokenizer"):
            task.write_hugging_face(tmp_path)
    task = make_task(pretrained=str(folder))
    folder.rename(tmp_path / "away")
    with pytest.raises(DataError):
        task.write_hugging_face(tmp_path)


def test_a_pretrained_model_is_exported_with_its_own_files(make_task, tmp_path, folder):
    task = make_task(pretrained=str(folder))
    model = task.build().eval()
    with torch.no_grad():
        model.inner.get_input_embeddings().weight.add_(0.25)
    out = export(task, model, tmp_path / "out")
    theirs = load_model(out)
    tokens = torch.arange(60)[None]
    with torch.no_grad():
        assert torch.equal(model(tokens), theirs(tokens).logits)
    assert theirs.dtype == torch.float32
    assert load_tokenizer(out)(TEXT) == load_tokenizer(folder)(TEXT)
