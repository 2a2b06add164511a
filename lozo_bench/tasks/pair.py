"""The input of a classifier head: one text or a pair of texts, joined by the tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lozo_bench.errors import bad_data, bad_value
from lozo_bench.tasks.base import Encoded, Example
from lozo_bench.tasks.masked import refuse_demonstrations
from lozo_bench.tasks.template import Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PairPrompt:
    """Encodes an example as one row without a prompt, for a model with a classifier head.

    The row's one or two fields, or the texts that are made of its fields, are tokenised as a text
    or a pair. A row longer than
    ``max_length`` loses tokens at the end of its longer text. No token is scored: ``answer`` is
    position 0, and ``label_ids`` are the class ids, which are the indices of the classes in the
    output of the head.

    Source: text_entailment_datasets.py and sentiment_analysis_datasets.py of the HeteroLoRA
    release.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        classes: int,
        max_length: int,
        texts: Sequence[str] = (),
    ) -> None:
        """Check the arguments.

        Args:
            tokenizer: The tokenizer of the model.
            classes: The number of classes.
            max_length: The largest number of tokens in a row.
            texts: The templates of the one or two texts. Empty if the fields themselves are read.

        Raises:
            UserError: A value is not allowed; the message names its ``task.*`` key.
        """
        least = tokenizer.num_special_tokens_to_add(pair=True) + 2
        if max_length < least:
            raise bad_value("task.max_length", max_length, f"a whole number >= {least}")
        if classes < 2:
            raise bad_value("task.source.labels", classes, "two or more classes")
        self._tokenizer, self._max_length = tokenizer, max_length
        self._texts = [Template(text, "task.texts") for text in texts]
        self.label_ids = tuple(range(classes))

    def encode(self, example: Example, shown: Sequence[Example] = ()) -> Encoded:
        """Return one row of token ids.

        Raises:
            UserError: The example has more than two fields, has no class of the head, or comes with
                demonstrations; the message names ``example.where``.
        """
        refuse_demonstrations(shown, "model.kind=classifier")
        texts = [text.fill(example.fields, example.where) for text in self._texts]
        texts = texts or list(example.fields.values())
        if len(texts) > 2:
            raise bad_data(
                example.where,
                f"the row has {len(texts)} fields ({', '.join(example.fields)}); a classifier "
                "reads one or two",
            )
        if not 0 <= example.label < len(self.label_ids) or example.options or example.answers:
            raise bad_data(
                example.where,
                f"there is no class {example.label}; the head has {len(self.label_ids)} classes",
            )
        encoding = self._tokenizer(
            *texts, truncation=True, max_length=self._max_length, verbose=False
        )
        return Encoded(
            rows=(tuple(encoding["input_ids"]),),
            answer=((0,),),
            label=example.label,
            cut=bool(encoding.encodings[0].overflowing),
        )
