"""What is measured on a split, on translations that the model wrote by itself."""

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
from models.doc_translation.images import blank
from models.doc_translation.model import greedy, texts
from models.doc_translation.vocabulary import Vocabulary

ORDER = 4
SIZE = 2 * ORDER + 2
"""Numbers that BLEU needs of a corpus: matches and n-grams of each order, and two lengths."""

_NO_PLAIN_TEXT = re.compile(
    r"\\begin\{(table|tabular)(\*?)\}.*?\\end\{\1\2\}|\\\(.*?\\\)|\\\[.*?\\\]", re.DOTALL
)


def plain_text(markdown: str) -> str:
    """`markdown` without tables and formulas: what BLEU-PT compares."""
    return _NO_PLAIN_TEXT.sub("", markdown)


class Bleu:
    """Corpus BLEU as sacrebleu counts it.

    Sources: Papineni et al., BLEU, 2002; Post, A Call for Clarity in Reporting BLEU Scores, 2018.
    """

    def __init__(self, tokenize: str) -> None:
        from sacrebleu.metrics import BLEU

        # Not to be told that the texts look tokenized: they are as the model wrote them.
        self._inner: Any = BLEU(tokenize=tokenize, force=True)

    def counts(self, written: Sequence[str], references: Sequence[str]) -> list[float]:
        """What pages add to the corpus: SIZE numbers. `written` is not empty."""
        found = self._inner.corpus_score(list(written), [list(references)])
        return [*found.counts, *found.totals, found.sys_len, found.ref_len]

    def score(self, counts: Sequence[float]) -> float:
        """BLEU of summed `counts`, in [0, 100]."""
        whole = [round(count) for count in counts]
        return float(
            self._inner.compute_bleu(
                correct=whole[:ORDER],
                total=whole[ORDER : 2 * ORDER],
                sys_len=whole[2 * ORDER],
                ref_len=whole[2 * ORDER + 1],
                smooth_method="exp",
                max_ngram_order=ORDER,
            ).score
        )

    @property
    def signature(self) -> str:
        """How BLEU was computed, to be quoted with it."""
        self._inner.corpus_score(["a"], [["a"]])  # it must have seen how many references there are
        return str(self._inner.get_signature())


_HEADING = re.compile(r"(#{1,6})\s*(.*)", re.DOTALL)
_BLANK = re.compile(r"\n\s*\n")


@dataclass
class Node:
    """A heading with what stands below it, or a paragraph."""

    kind: str
    has_text: bool
    level: int
    children: list[Node] = field(default_factory=list)


def tree(text: str) -> Node:
    """The headings and paragraphs of Markdown, below a root; blank lines and headings part them."""
    root = Node("root", True, 0)
    path = [root]
    for block in _blocks(text):
        heading = _HEADING.match(block)
        if heading is None:
            path[-1].children.append(Node("paragraph", True, 7))
            continue
        node = Node("heading", bool(heading[2].strip()), len(heading[1]))
        while path[-1].level >= node.level:
            path.pop()
        path[-1].children.append(node)
        path.append(node)
    return root


def _blocks(text: str) -> list[str]:
    """Paragraphs, and headings, which need no blank line after them."""
    found: list[str] = []
    for part in _BLANK.split(text):
        lines: list[str] = []
        for line in part.strip().split("\n"):
            if _HEADING.match(line):
                found += ["\n".join(lines), line]
                lines = []
            else:
                lines.append(line)
        found.append("\n".join(lines))
    return [block for block in found if block.strip()]


def _count(node: Node) -> int:
    return 1 + sum(map(_count, node.children))


def _relabel(one: Node | None, other: Node | None) -> int:
    """1 for what is inserted or removed; 0 for nodes of one kind that both say something."""
    if one is None or other is None:
        return 1
    return int(one.kind != other.kind or not (one.has_text and other.has_text))


def steds(written: str, reference: str) -> float:
    """100 · (1 − TED / nodes of the larger tree), the roots not counted; in [0, 100].

    TED is the ordered tree edit distance with unit costs. Source: Zhang and Shasha, Simple Fast
    Algorithms for the Editing Distance between Trees and Related Problems, 1989.
    """
    import zss

    one, other = tree(written), tree(reference)
    most = max(_count(one), _count(other)) - 1
    if most == 0:
        return 100.0
    distance = zss.distance(
        one,
        other,
        get_children=lambda node: node.children,
        insert_cost=lambda node: 1,
        remove_cost=lambda node: 1,
        update_cost=_relabel,
    )
    return 100.0 * (1 - float(distance) / most)


class TranslationMetric:
    """val_bleu, val_bleu_pt, val_steds, and for information the teacher-forced val_loss.

    With `against_blank`, `val_bleu_gain`, too: how much better BLEU is than that of blank pages.
    """

    def __init__(
        self, vocabulary: Vocabulary, tokenize: str, count: int, against_blank: bool
    ) -> None:
        """`count` tokens are written for each page."""
        self.vocabulary, self.count = vocabulary, count
        self.against_blank = against_blank
        self.bleu = Bleu(tokenize)

    @torch.no_grad()
    def update(self, model: Module, batch: Batch) -> Tensor:
        """Loss, tokens, STEDS, pages, and the counts of three BLEUs; float64.

        Always the same number of calls of `model`. Collective where the model is sharded.
        """
        views = batch["page_global"], batch["page_local"]
        memory = model(*views)
        loss = model(memory=memory, decoder_ids=batch["decoder_ids"], labels=batch["labels"])
        references = batch["references"]
        written = texts(greedy(model, memory, self.count, self.vocabulary), self.vocabulary)
        counts = [loss.item(), batch["units"]]
        counts += [math.fsum(map(steds, written, references)), len(references)]
        counts += self.bleu.counts(written, references)
        counts += self.bleu.counts(
            [plain_text(text) for text in written], [plain_text(text) for text in references]
        )
        counts += self._blank_counts(model, views, references)
        device = "cpu" if memory.device.type == "mps" else memory.device  # it has no float64
        return torch.tensor(counts, dtype=torch.float64, device=device)

    def _blank_counts(
        self, model: Module, views: tuple[Tensor, Tensor], references: list[str]
    ) -> list[float]:
        if not self.against_blank:
            return [0.0] * SIZE
        memory = model(*blank(*views))
        written = texts(greedy(model, memory, self.count, self.vocabulary), self.vocabulary)
        return self.bleu.counts(written, references)

    def result(self, counts: Tensor) -> dict[str, float]:
        """The metrics of the summed counts."""
        loss, tokens, similarity, pages, *rest = counts.tolist()
        bleu, plain, blank = (
            self.bleu.score(rest[start : start + SIZE]) for start in range(0, 3 * SIZE, SIZE)
        )
        metrics = {
            "val_bleu": bleu,
            "val_bleu_pt": plain,
            "val_steds": similarity / pages,
            "val_loss": loss / tokens,
        }
        if self.against_blank:
            metrics["val_bleu_gain"] = bleu - blank
        return metrics
