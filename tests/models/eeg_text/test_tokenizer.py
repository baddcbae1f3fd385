from gearshift.models.eeg_text.texts import SentenceByteTokenizer, build_tokenizer
from tests.models.tasks import saving_context

TEXTS = ["the old man finds a drum", "the old child paints a drum"] * 3


def test_bytes_are_decoded_up_to_the_first_end_token():
    tokens = SentenceByteTokenizer()
    assert tokens.decode([tokens.start, *tokens.encode("Öl & </s>"), tokens.end, 65]) == "Öl & </s>"
    assert tokens.decode([0xFF, tokens.pad, 65]) == "\N{REPLACEMENT CHARACTER}A"
    assert max(tokens.pad, tokens.start, tokens.end, tokens.hidden) < tokens.size == 272


def test_a_trained_tokenizer_is_saved_in_the_run_folder_and_loaded_from_there(tmp_path):
    first = build_tokenizer("bpe", TEXTS, 400, saving_context(tmp_path))
    again = build_tokenizer("bpe", ["something else"], 400, saving_context(tmp_path))
    text = "the old man, </s> and 家"
    assert again.encode(text) == first.encode(text)
    assert first.decode([*first.encode(text), first.end, 5]) == text
    assert len(first.encode("the old")) == 2
    assert first.size <= 400
