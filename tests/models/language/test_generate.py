from dataclasses import replace

import pytest
import torch

from gearshift.models.base import GeneratesText, Message, Prompt, Sampling
from gearshift.models.language.config import SIZES
from gearshift.models.language.generate import generate
from gearshift.models.language.model import Transformer
from gearshift.models.language.preview import choose, continue_tokens
from gearshift.models.language.tokenizer import ByteTokenizer
from tests.models.language.chats import KINDS, TEMPLATES, chat_tokenizer, plain
from tests.models.language.in_memory import TOKENIZER
from tests.models.language.test_pretrained import CONFIGS, save

CPU = torch.device("cpu")
GREEDY = Sampling(max_tokens=24, temperature=0.0)
SAMPLED = Sampling(max_tokens=24, temperature=1.0)
PROMPT = [257, *b"def "]


@pytest.fixture
def model():
    torch.manual_seed(0)
    found = Transformer(SIZES["tiny"])
    with torch.no_grad():
        for weight in found.parameters():
            weight *= 3 if weight.dim() > 1 else 1  # texts without repetition
        found.model.embed_tokens.weight[256:] = 0.0  # no token but bytes is the likeliest
    return found.eval()


def text(model, sampling, prompt=PROMPT, window=64, tokenizer=TOKENIZER):
    return "".join(generate(model, prompt, sampling, tokenizer, window))


def test_cached_keys_and_values_give_the_tokens_of_whole_passes(model):
    expected = continue_tokens(model, [PROMPT], GREEDY, 256, CPU)[0]
    assert len(set(expected)) > 8 and 258 not in expected
    assert text(model, GREEDY) == TOKENIZER.decode(expected)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_pretrained_model_gives_the_tokens_of_whole_passes(name, tmp_path, make_task):
    from gearshift.models.language import subword_tokenizers

    folder = save(tmp_path / "model", CONFIGS[name]())
    model = make_task(pretrained=str(folder)).build().eval()
    tokenizer = subword_tokenizers.load(folder)
    prompt = tokenizer.encode("Sentence 7").tolist()
    generator, tokens = torch.Generator().manual_seed(0), list(prompt)
    while len(tokens) < len(prompt) + 24 and tokenizer.end not in tokens:
        with torch.no_grad():
            logits = model(torch.tensor([tokens]))[0, -1, : tokenizer.size]
        tokens.append(choose(logits, SAMPLED, generator))
    expected = tokenizer.decode(tokens[len(prompt) :])
    assert len(set(tokens)) > 8
    assert text(model, SAMPLED, prompt, tokenizer=tokenizer) == expected


def test_a_full_window_drops_its_older_half(model):
    tokens, expected = list(PROMPT), []
    for _ in range(24):
        if len(tokens) == 16:
            tokens = [tokens[0], *tokens[-7:]]
        with torch.no_grad():
            expected.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
        tokens.append(expected[-1])
    assert text(model, GREEDY, window=16) == TOKENIZER.decode(expected)


def test_a_seed_gives_one_text_and_temperature_0_or_the_smallest_limits_the_likeliest(model):
    one, greedy = text(model, SAMPLED), text(model, GREEDY)
    assert one == text(model, SAMPLED) != text(model, replace(SAMPLED, seed=1))
    assert text(model, replace(GREEDY, seed=5)) == greedy != one
    assert text(model, replace(SAMPLED, top_k=1)) == greedy
    assert text(model, replace(SAMPLED, top_p=1e-9)) == greedy


@pytest.mark.parametrize(
    ("limits", "expected"),
    [({}, {0, 1, 2, 3}), ({"top_k": 2}, {1, 3}), ({"top_p": 0.65}, {1, 3}), ({"top_p": 0.6}, {3})],
)
def test_only_the_likeliest_tokens_are_sampled(limits, expected):
    logits = torch.tensor([0.15, 0.2, 0.05, 0.6]).log()
    generator = torch.Generator().manual_seed(0)
    sampling = Sampling(temperature=1.0, **limits)
    assert {choose(logits, sampling, generator) for _ in range(300)} == expected


class Reciting(Transformer):
    """A model that writes fixed tokens."""

    def __init__(self, tokens):
        super().__init__(SIZES["tiny"])
        self.tokens = iter(tokens)
        self.lm_head.forward = self._next

    def _next(self, hidden, labels=None, measure=False):
        return torch.nn.functional.one_hot(torch.tensor([next(self.tokens)]), 272).float()


def test_a_character_of_several_tokens_comes_whole_and_the_end_token_ends():
    model = Reciting([*"a€ü".encode(), 0xE2, 258, *b"never"])
    parts = list(generate(model, PROMPT, GREEDY, ByteTokenizer(), 64))
    assert parts == ["a", "€", "ü", "\N{REPLACEMENT CHARACTER}"]


@pytest.mark.parametrize(
    ("path", "given", "start", "used"),
    [
        ("embedded:python", SAMPLED, b"list all", replace(SAMPLED, temperature=0.8)),
        ("embedded:commands", GREEDY, b"User: list all\nAssistant: ", GREEDY),
    ],
)
def test_a_run_on_text_continues_it_by_sampling_and_one_on_requests_answers_the_likeliest(
    make_task, ready_task, tmp_path, path, given, start, used
):
    ready_task(tmp_path, path=path)
    task = make_task(tmp_path, path=path, start=str(tmp_path / "gone"))
    assert isinstance(task, GeneratesText)
    task.setup_without_data()
    model = task.build().eval()  # without its initial weights
    assert task.answers_requests() == (path == "embedded:commands")
    prompt, default = Prompt("a", (Message("user", "list all"),)), replace(given, temperature=None)
    found = "".join(task.generate(model, prompt, default))
    assert found == text(model, used, [257, *start], window=128)


def test_the_tokens_of_a_prompt_beyond_the_context_are_counted(make_task, ready_task, tmp_path):
    ready_task(tmp_path, seq_len=16)
    task = make_task(tmp_path, seq_len=16)
    task.setup_without_data()
    prompt = Prompt("a", (Message("user", "x" * 20),))  # and the start token
    assert task.dropped_tokens(prompt, Sampling(max_tokens=4)) == 21 - 12
    assert task.dropped_tokens(Prompt("a", (Message("user", "x"),)), Sampling()) == 0


class RecitingChat:
    """As Reciting, for a tokenizer of any size."""

    def __init__(self, tokens, size):
        self.logits = iter(torch.nn.functional.one_hot(torch.tensor(tokens), size).float())

    def begin(self):
        return lambda tokens: next(self.logits)


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_is_what_transformers_decodes_up_to_the_end_of_the_template(tmp_path, kind):
    tokenizer = chat_tokenizer(tmp_path, kind, plain(TEMPLATES["chatml"]))
    for answer in (" Hello  word", "a b .", "\n12, ", "ü <b>", "<think>\n\n</think> yes 's no"):
        tokens = tokenizer.encode(answer).tolist()
        for end in ("</s>", "<|im_end|>"):
            recited = [*tokens, tokenizer.inner.convert_tokens_to_ids(end), *tokens]
            model = RecitingChat(recited, tokenizer.size)
            expected = tokenizer.inner.decode(tokens, skip_special_tokens=True)
            assert "".join(generate(model, [1], GREEDY, tokenizer, 64)) == expected
