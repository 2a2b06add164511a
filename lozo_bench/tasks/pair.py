"""The input of a classifier: one text or a pair of texts, as the tokenizer joins them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lozo_bench.errors import bad_data, bad_value
from lozo_bench.tasks.base import Encoded, Example
from lozo_bench.tasks.masked import refuse_shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PairPrompt:
    """Turns an example into one row without words of its own, for a model with a classifier head.

    The fields' texts, one or two, go through the tokenizer as a pair. Rows longer than
    ``max_length`` lose tokens at the end of the longer text. Nothing is read at a token: the
    ``answer`` is position 0, and ``label_ids`` are the numbers of the classes, which are the places
    of their scores in the head's output. Source: text_entailment_datasets.py and
    sentiment_analysis_datasets.py of HeteroLoRA's code, spec heterolora section 3.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, classes: int, max_length: int) -> None:
        """Raises UserError naming the ``task.*`` key that is wrong."""
        least = tokenizer.num_special_tokens_to_add(pair=True) + 2
        if max_length < least:
            raise bad_value("task.max_length", max_length, f"a whole number >= {least}")
        if classes < 2:
            raise bad_value("task.source.labels", classes, "two or more")
        self._tokenizer, self._max_length = tokenizer, max_length
        self.label_ids = tuple(range(classes))

    def encode(self, example: Example, shown: Sequence[Example] = ()) -> Encoded:
        """One row of token ids. Raises UserError with ``example.where`` for what it cannot hold."""
        refuse_shown(shown, "model.kind=classifier")
        texts = list(example.fields.values())
        if len(texts) > 2:
            raise bad_data(
                example.where,
                f"{len(texts)} fields ({', '.join(example.fields)}); a classifier reads one or two",
            )
        if not 0 <= example.label < len(self.label_ids) or example.options or example.answers:
            raise bad_data(
                example.where, f"no class {example.label} of the head's {len(self.label_ids)}"
            )
        ids = self._tokenizer(*texts, truncation=True, max_length=self._max_length, verbose=False)[
            "input_ids"
        ]
        return Encoded(rows=(tuple(ids),), answer=((0,),), label=example.label)
