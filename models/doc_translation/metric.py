"""Metrics of generated translations: BLEU and structure similarity (STEDS)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from gearshift.models.base import Batch
from gearshift.models.common.bleu import Bleu
from gearshift.models.common.family import Scores, Sums
from gearshift.models.doc_translation.decoding import beam_search, texts
from gearshift.models.doc_translation.images import blank
from gearshift.models.doc_translation.vocabulary import Vocabulary

_TABLE_OR_FORMULA = re.compile(
    r"\\begin\{(table|tabular)(\*?)\}.*?\\end\{\1\2\}|\\\(.*?\\\)|\\\[.*?\\\]",
    re.DOTALL,
)


def plain_text(markdown: str) -> str:
    """`markdown` without tables and formulas, for BLEU-PT."""
    return _TABLE_OR_FORMULA.sub("", markdown)


_TOKENIZERS = {
    "zh": "zh",
    "yue": "zh",
    "ja": "char",
    "ko": "char",
    "th": "char",
    "lo": "char",
    "km": "char",
    "my": "char",
}
"""Of sacrebleu by language; 13a, the default, would take a sentence without spaces for a word.

Japanese and Korean by characters: MeCab, which sacrebleu has for them, gives other scores with
another dictionary.
"""


def bleu_of(language: str) -> Bleu:
    """The BLEU of texts in `language`, such as `zh` or `pt_BR`, which chooses the tokenizer."""
    return Bleu(_TOKENIZERS.get(re.split("[-_]", language.lower())[0], "13a"))


_HEADING = re.compile(r"(#{1,6})\s*(.*)", re.DOTALL)
_BLANK = re.compile(r"\n\s*\n")


def tree(text: str) -> Any:
    """Tree of the headings and paragraphs of Markdown, separated by blank lines and headings.

    The label of a node is its kind; empty: a heading without text.
    """
    from zss import Node

    root = Node("root")
    # By its level, the headings that the next line is below.
    path = {0: root}
    for part in _BLANK.split(text):
        in_paragraph = False
        for line in part.strip().split("\n"):
            heading = _HEADING.match(line)
            if heading is None:
                if line.strip() and not in_paragraph:
                    path[max(path)].addkid(Node("paragraph"))
                    in_paragraph = True
                continue
            in_paragraph = False
            node = Node("heading" if heading[2].strip() else "")
            # A heading ends those of its own level and below.
            level = len(heading[1])
            path = {above: path[above] for above in path if above < level}
            path[max(path)].addkid(node)
            path[level] = node
    return root


def _cost(first: str, second: str) -> int:
    """0 for labels of one kind with text, otherwise 1; also to insert and to remove one."""
    return int(not first or first != second)


def steds(written: str, reference: str) -> float:
    """Structure similarity 100 · (1 − TED / nodes of the larger tree), without roots; in [0, 100].

    TED is the ordered tree edit distance with unit costs. Source: Zhang and Shasha, Simple Fast
    Algorithms for the Editing Distance between Trees and Related Problems, 1989.
    """
    import zss

    trees = (tree(written), tree(reference))
    nodes = max(len(list(root.iter())) for root in trees) - 1
    if nodes == 0:
        return 100.0
    return 100.0 * (1 - float(zss.simple_distance(*trees, label_dist=_cost)) / nodes)


def page_sums(bleu: Bleu, written: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
    """STEDS and pages, and the counts of BLEU with and without tables and formulas."""
    return {
        "steds": (math.fsum(map(steds, written, references)), len(references)),
        "bleu": tuple(bleu.counts(written, references)),
        "bleu_pt": tuple(bleu.counts(map(plain_text, written), map(plain_text, references))),
    }


def page_scores(bleu: Bleu, sums: Mapping[str, Sequence[float]], end: str = "") -> dict[str, Any]:
    """The metrics of `page_sums`, each name with `end`."""
    total, pages = sums["steds"]
    return {
        f"val_bleu{end}": bleu.score(sums["bleu"]),
        f"val_bleu_pt{end}": bleu.score(sums["bleu_pt"]),
        f"val_steds{end}": total / pages,
    }


@dataclass(eq=False)
class TranslationMetric(Sums):
    """val_bleu, val_bleu_pt and val_steds; of a beam search with the suffix `_beam`.

    With one beam also the teacher-forced val_loss; with `against_blank` also `val_bleu_gain`: BLEU
    minus BLEU of blank pages.
    """

    vocabulary: Vocabulary
    bleu: Bleu
    count: int
    """Tokens generated per page."""
    beams: int = 1
    against_blank: bool = False

    def __post_init__(self) -> None:
        super().__init__(self._sums, self._metrics)

    def _sums(self, model: Module, batch: Batch) -> dict[str, Any]:
        """Those of `page_sums`, of blank pages, loss and tokens; always as many model calls."""
        pages = (batch["page_global"], batch["page_local"])
        references = batch["references"]
        memory = model(*pages)
        sums = page_sums(self.bleu, self._written(model, memory), references)
        # On the device of the model, and with it all sums.
        sums["pages"] = torch.tensor(len(references), device=memory.device)
        if self.beams == 1:  # the evaluation by beam search comes beside that by one beam
            loss = model(memory=memory, decoder_ids=batch["decoder_ids"], labels=batch["labels"])
            sums["loss"] = loss, batch["units"]
        if self.against_blank:
            written = self._written(model, model(*blank(*pages)))
            sums["blank"] = tuple(self.bleu.counts(written, references))
        return sums

    def _written(self, model: Module, memory: Tensor) -> list[str]:
        tokens = beam_search(model, memory, self.count, self.vocabulary, self.beams)
        return texts(tokens, self.vocabulary)

    def _metrics(self, sums: Mapping[str, Tensor]) -> Scores:
        numbers = {name: vector.tolist() for name, vector in sums.items()}
        metrics = page_scores(self.bleu, numbers, "" if self.beams == 1 else "_beam")
        if self.beams == 1:
            loss, units = numbers["loss"]
            metrics["val_loss"] = loss / units
        if self.against_blank:
            metrics["val_bleu_gain"] = metrics["val_bleu"] - self.bleu.score(numbers["blank"])
        return metrics
