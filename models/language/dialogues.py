"""Samples of conversations: rows that learn the answers."""

from __future__ import annotations

import numpy as np

from gearshift.models.base import Draws
from gearshift.models.common.data_reports import BadRecords
from gearshift.models.common.noise_control import of_other_groups
from gearshift.models.language.encoded import Encoded
from gearshift.models.language.model import IGNORE
from gearshift.models.language.readers.corpus import Corpus, text_of
from gearshift.models.language.rows import Bands, Row, Rules, TokenWindows


class Dialogues:
    """A row for each conversation; labels are its answers, each with what ends it.

    A conversation longer than a row becomes several rows, and each answer is learned in one of
    them. After the first row its new turns take up to half a row, and the newest history the rest.
    A long prompt keeps its first token and loses the oldest others. An answer is never cut: an
    exchange with an answer longer than a row is a bad row. In a noise control each exchange is a
    row, and each request gets the answer to one of another kind; evaluation also has the true
    pairs.
    """

    def __init__(
        self,
        encoded: Encoded,
        corpus: Corpus,
        numbers: np.ndarray,
        rules: Rules,
        side: int,
    ) -> None:
        """`numbers` are the exchanges of a split, which is number `side`; training comes first.

        Raises DataError if an answer does not fit and `on_bad` is stop.
        """
        self.length = rules.length
        self._encoded = encoded
        self._labels = corpus.labels
        offsets = encoded.offsets
        answer_sizes = encoded.sizes[1::2]
        # The first exchange of the row that each exchange is in.
        begins_row = encoded.begins_row[::2]
        first = np.maximum.accumulate(begins_row * np.arange(len(begins_row)))

        # Of each row: the exchange of its request, that of its first answer, the end of answers.
        if rules.control == "noise":
            requests = numbers
            answers = numbers[of_other_groups(corpus.labels[numbers], rules.seed + side)]
            if side > 0:  # the true pairs, too: their loss is compared
                requests = np.tile(numbers, 2)
                answers = np.append(answers, numbers)
            ends = answers + 1
            is_true = requests == answers
        else:
            begins = self._begins(first[numbers], numbers)
            requests = numbers[begins]
            answers = requests
            ends = np.append(numbers[begins[1:] - 1], numbers[-1]) + 1
            is_true = np.zeros(len(begins), dtype=bool)

        # The last token is only a label; at least one prompt token must remain.
        starts = offsets[2 * first[requests]]
        prompt_ends = offsets[2 * requests + 1]
        prompts = prompt_ends - starts
        sizes = offsets[2 * ends] - offsets[2 * answers + 1]
        room = self.length + 1 - sizes
        fits = room >= 1
        names = corpus.names[requests]
        self.skipped = self._num_skipped(names, sizes, fits, rules)
        self.truncated = int((fits & (prompts > room) & ~is_true).sum())

        prompts = np.minimum(prompts, room)
        prompt_begins = prompt_ends - prompts + 1
        rows = np.stack((starts, prompt_begins, prompt_ends, answers, ends, is_true))
        self._rows = rows[:, fits]
        self._names = names[fits]
        self.tokens = self._total(answer_sizes)
        self.bytes_per_token = self._total(encoded.text_bytes[1::2]) / self.tokens
        self.mean_length = float((prompts + sizes - 1)[fits].mean())

    def _num_skipped(
        self,
        names: np.ndarray,
        sizes: np.ndarray,
        fits: np.ndarray,
        rules: Rules,
    ) -> int:
        """The rows whose answers do not fit. Raises DataError unless they are skipped."""
        fix = ""
        longest = int(self._encoded.sizes[1::2].max())  # also of the other splits
        if rules.longest is None or longest <= rules.longest:
            fix = f"--set data.seq_len={longest}"  # `data check` takes it, too
        bad_records = BadRecords()
        for i in np.flatnonzero(~fits):
            problem = f"the answer has {sizes[i]} tokens; data.seq_len is {self.length}"
            bad_records.add(text_of(names[i]), problem, fix)
        # Where no answer fits, skipping leaves nothing.
        on_bad = rules.on_bad if fits.any() else "stop"
        return bad_records.finish(on_bad, int(fits.sum()))

    def _begins(self, first: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """The positions in `numbers` where a row begins.

        `first`: for each of `numbers`, the first exchange of its conversation.
        """
        is_first = np.diff(first, prepend=-1) != 0
        sizes = np.diff(self._encoded.offsets[::2])[numbers]
        whole_row = self.length + 1
        begins = []
        used = 0
        room = 0
        for at, size in enumerate(sizes.tolist()):
            if is_first[at] or used + size > room:
                # Half of each later row is for history.
                room = whole_row if is_first[at] else whole_row // 2
                used = 0
                begins.append(at)
            used += size
        return np.array(begins)

    def _total(self, counts: np.ndarray) -> int:
        """The sum over the answers of all rows; `counts`: one for each answer of the data."""
        sums = np.append(0, counts.cumsum())
        answers, ends = self._rows[3:5]
        return int((sums[ends] - sums[answers]).sum())

    def __len__(self) -> int:
        return len(self._names)

    def sample(self, index: int, draws: Draws | None = None) -> Row:
        encoded = self._encoded
        start, begin, prompt_end, answer, end, is_true = self._rows[:, index].tolist()
        edges = encoded.offsets[2 * answer + 1 : 2 * end + 1]

        opening = encoded.read(start, start + 1)
        newest = encoded.read(begin, prompt_end)
        answers = encoded.read(int(edges[0]), int(edges[-1]))
        tokens = np.concatenate((opening, newest, answers)).astype(np.int64)

        # What is between two edges is in turn an answer, and what is before the next one.
        is_answer = np.arange(len(edges) - 1) % 2 == 0
        is_label = np.append(np.zeros(len(newest), bool), np.repeat(is_answer, np.diff(edges)))
        labels = np.where(is_label, tokens[1:], IGNORE)
        return Row(
            tokens[:-1],
            labels,
            text_of(self._names[index]),
            bytes_per_token=self.bytes_per_token,
            source=-is_true,
        )

    def control(self) -> Bands:
        """The bands of the metrics on permuted answers: chance is guessing one of the labels."""
        return {
            "exact_match": {"max": 2 / len(np.unique(self._labels))},
            "matched_gap": {"max": 0.02},
        }


Samples = TokenWindows | Dialogues
"""The samples of a split."""
