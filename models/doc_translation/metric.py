"""Metrics of generated translations: BLEU and structure similarity (STEDS)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from models.base import Batch
from models.doc_translation.decoding import beam_search, texts
from models.doc_translation.images import blank
from models.doc_translation.vocabulary import Vocabulary

ORDER = 4
SIZE = 2 * ORDER + 2
"""Counts of corpus BLEU: matches and n-grams of each order, and two lengths."""

_TABLE_OR_FORMULA = re.compile(
    r"\\begin\{(table|tabular)(\*?)\}.*?\\end\{\1\2\}|\\\(.*?\\\)|\\\[.*?\\\]", re.DOTALL
)


def plain_text(markdown: str) -> str:
    """`markdown` without tables and formulas, for BLEU-PT."""
    return _TABLE_OR_FORMULA.sub("", markdown)


_TOKENIZERS = {"zh": "zh", "yue": "zh", **dict.fromkeys(("ja", "ko", "th", "lo", "km", "my"), "char")}
"""Of sacrebleu by language; 13a, the default, would take a sentence without spaces for a word.

Japanese and Korean by characters: MeCab, which sacrebleu has for them, gives other scores with
another dictionary.
"""


class Bleu:
    """Corpus BLEU of sacrebleu, from counts that add up over batches and ranks.

    Sources: Papineni et al., BLEU, 2002; Post, A Call for Clarity in Reporting BLEU Scores, 2018.
    """

    def __init__(self, language: str) -> None:
        """`language`: of the texts, such as `zh` or `pt_BR`; it chooses the tokenizer."""
        from sacrebleu.metrics import BLEU

        tokenize = _TOKENIZERS.get(re.split("[-_]", language.lower())[0], "13a")
        # force: no warning about tokenized text, because it is model output.
        self._inner: Any = BLEU(tokenize=tokenize, force=True)

    def counts(self, written: Sequence[str], references: Sequence[str]) -> list[float]:
        """Counts of non-empty `written` against `references`: SIZE numbers."""
        score = self._inner.corpus_score(list(written), [list(references)])
        return [*score.counts, *score.totals, score.sys_len, score.ref_len]

    def score(self, counts: Sequence[float]) -> float:
        """BLEU of summed `counts`, in [0, 100]."""
        *ngrams, sys_len, ref_len = (round(count) for count in counts)
        correct, total = ngrams[:ORDER], ngrams[ORDER:]
        smoothing = {"smooth_method": "exp", "max_ngram_order": ORDER}
        return float(self._inner.compute_bleu(correct, total, sys_len, ref_len, **smoothing).score)

    @property
    def signature(self) -> str:
        """sacrebleu signature, to be reported with the score."""
        self._inner.corpus_score(["a"], [["a"]])  # sets the number of references
        return str(self._inner.get_signature())


_HEADING = re.compile(r"(#{1,6})\s*(.*)", re.DOTALL)
_BLANK = re.compile(r"\n\s*\n")


@dataclass
class HeadingNode:
    """A heading with its subtree, or a paragraph."""

    kind: str
    has_text: bool
    level: int
    children: list[HeadingNode] = field(default_factory=list)

    def count(self) -> int:
        return 1 + sum(child.count() for child in self.children)


def tree(text: str) -> HeadingNode:
    """Tree of the headings and paragraphs of Markdown, separated by blank lines and headings."""
    root = HeadingNode("root", True, 0)
    path = [root]
    for part in _BLANK.split(text):
        in_paragraph = False
        for line in part.strip().split("\n"):
            heading = _HEADING.match(line)
            if heading is None:
                if line.strip() and not in_paragraph:
                    path[-1].children.append(HeadingNode("paragraph", True, 7))
                    in_paragraph = True
                continue
            in_paragraph = False
            node = HeadingNode("heading", bool(heading[2].strip()), len(heading[1]))
            while path[-1].level >= node.level:
                path.pop()
            path[-1].children.append(node)
            path.append(node)
    return root


def _update_cost(first: HeadingNode | None, second: HeadingNode | None) -> int:
    """0 for nodes of one kind with text, otherwise 1."""
    if first is None or second is None:
        return 1
    return int(first.kind != second.kind or not (first.has_text and second.has_text))


def steds(written: str, reference: str) -> float:
    """Structure similarity 100 · (1 − TED / nodes of the larger tree), without roots; in [0, 100].

    TED is the ordered tree edit distance with unit costs. Source: Zhang and Shasha, Simple Fast
    Algorithms for the Editing Distance between Trees and Related Problems, 1989.
    """
    import zss

    first, second = tree(written), tree(reference)
    nodes = max(first.count(), second.count()) - 1
    if nodes == 0:
        return 100.0
    distance = zss.distance(
        first,
        second,
        get_children=lambda node: node.children,
        insert_cost=lambda node: 1,
        remove_cost=lambda node: 1,
        update_cost=_update_cost,
    )
    return 100.0 * (1 - float(distance) / nodes)


class TranslationMetric:
    """val_bleu, val_bleu_pt and val_steds; of a beam search with the suffix `_beam`.

    With one beam also the teacher-forced val_loss; with `against_blank` also `val_bleu_gain`: BLEU
    minus BLEU of blank pages.
    """

    def __init__(
        self, vocabulary: Vocabulary, language: str, count: int, beams: int = 1, against_blank: bool = False
    ) -> None:
        """`count`: tokens generated per page."""
        self.vocabulary, self.count, self.beams = vocabulary, count, beams
        self.against_blank, self.bleu = against_blank, Bleu(language)

    @torch.no_grad()
    def update(self, model: Module, batch: Batch) -> Tensor:
        """STEDS, pages, the counts of both BLEUs, loss and tokens, BLEU of blank pages; float64.

        Always the same number of model calls. Collective if the model is sharded.
        """
        views, references = (batch["page_global"], batch["page_local"]), batch["references"]
        memory = model(*views)
        written = self._written(model, memory)
        plain = [[plain_text(text) for text in side] for side in (written, references)]
        counts = [math.fsum(map(steds, written, references)), len(references)]
        counts += [*self.bleu.counts(written, references), *self.bleu.counts(*plain)]
        if self.beams == 1:
            loss = model(memory=memory, decoder_ids=batch["decoder_ids"], labels=batch["labels"])
            counts += [loss.item(), batch["units"]]
        if self.against_blank:
            counts += self.bleu.counts(self._written(model, model(*blank(*views))), references)
        device = "cpu" if memory.device.type == "mps" else memory.device  # which has no float64
        return torch.tensor(counts, dtype=torch.float64, device=device)

    def _written(self, model: Module, memory: Tensor) -> list[str]:
        return texts(beam_search(model, memory, self.count, self.vocabulary, self.beams), self.vocabulary)

    def result(self, counts: Tensor) -> dict[str, float]:
        similarity, pages, *rest = counts.tolist()
        end = "" if self.beams == 1 else "_beam"
        metrics = {
            f"val_bleu{end}": self.bleu.score(rest[:SIZE]),
            f"val_bleu_pt{end}": self.bleu.score(rest[SIZE : 2 * SIZE]),
            f"val_steds{end}": similarity / pages,
        }
        if self.beams == 1:
            loss, tokens, *of_blank = rest[2 * SIZE :]
            metrics["val_loss"] = loss / tokens
            if self.against_blank:
                metrics["val_bleu_gain"] = metrics["val_bleu"] - self.bleu.score(of_blank)
        return metrics
