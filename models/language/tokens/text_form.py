"""How an exchange is written down as one text, and where in it the answer begins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.language.text.records import Turn
from models.language.tokens.tokenizer import Tokenizer

_FORMS = {
    "system": "<system>{}</system>\n",
    "user": "User: {}\n",
    "assistant": "Assistant: {}\n",
    "tool": "<output>{}</output>\n",
}


def prompt_and_answer(
    before: Sequence[Turn], answer: str, tokenizer: Tokenizer
) -> tuple[np.ndarray, np.ndarray]:
    """The tokens up to the answer, and those of the answer with the end token.

    The form is that of the tokenizer's chat template, or `User: {request}\\nAssistant: {answer}`.
    """
    if form := tokenizer.template(before, answer):
        prompt, said = map(tokenizer.encode, form)
    else:
        text = "".join(_FORMS[t.role].format(t.text.strip()) for t in before) + "Assistant:"
        # A blank that is a token of its own belongs to the prompt: it is no part of the answer.
        blank_first, blank_last = ("", " ") if tokenizer.blank_leads else (" ", "")
        prompt = tokenizer.encode(text + blank_first)
        said = tokenizer.encode(blank_last + answer)
        if tokenizer.start is not None:
            prompt = np.concatenate(([tokenizer.start], prompt)).astype(prompt.dtype)
    if len(said) == 0 or said[-1] != tokenizer.end:
        said = np.append(said, np.array(tokenizer.end, dtype=prompt.dtype))
    return prompt, said
