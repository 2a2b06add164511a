"""C-LoRA's prompts: one joined text, in which the first token of each class's word is scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lozo_bench.errors import UserError, bad_data, bad_value
from lozo_bench.tasks.base import Encoded, Example
from lozo_bench.tasks.ending import ending_tokens
from lozo_bench.tasks.masked import refuse_demonstrations
from lozo_bench.tasks.template import Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MASK, PLACEHOLDER = "mask", "placeholder"
PLACEHOLDER_IDS = range(1000, 1050)

# How many rows are tokenised at once to compute their lengths. All rows of a data set together
# would not fit into memory.
ROWS_PER_CHUNK = 1000


class JoinedPrompt:
    """Encodes an example as one row, at one position of which the class words are scored.

    The text is a template, see `lozo_bench.tasks.template`. It is tokenised as a whole, with the
    special tokens of the tokenizer. For a masked model it contains ``{mask}`` once, and the classes
    are scored there. For a causal model they are scored as the continuation of the text.
    ``{placeholder}`` is the text of the model's tokens 1000 to 1049, which Black-Box-Tuning puts in
    front of each text.

    ``label_ids[i]`` is the FIRST token of the word of class i, tokenised WITHOUT a space before it.
    Rows longer than ``max_length`` are not cut. A source can drop them by calling `fits`.

    Source: dataloaders/dataloader.py and dataloaders/dataloader_gpt.py of the C-LoRA release.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        text: str,
        words: Sequence[str],
        max_length: int,
        masked: bool,
    ) -> None:
        """Parse the text.

        Args:
            tokenizer: The tokenizer of the model.
            text: The template.
            words: The word of each class.
            max_length: The largest number of tokens in a row.
            masked: Whether the model is a masked model, otherwise it is a causal one.

        Raises:
            UserError: A value is not allowed; the message names its ``task.*`` key.
        """
        self._text_key = "task.template" if masked else "task.prompt"
        words_key = "task.label_words" if masked else "task.options"
        if max_length < 1:
            raise bad_value("task.max_length", max_length, "a whole number >= 1")
        self._tokenizer, self._max_length, self._masked = tokenizer, max_length, masked
        self._ending = ending_tokens(tokenizer)
        self._check(text)
        before, _, after = text.partition(f"{{{MASK}}}")
        self._before = Template(before, self._text_key)
        self._after = Template(after, self._text_key)
        self._extra_fields = {PLACEHOLDER: str(tokenizer.decode(list(PLACEHOLDER_IDS)))}
        self.label_ids = self._first_tokens(words, words_key)

    def encode(self, example: Example, shown: Sequence[Example] = ()) -> Encoded:
        """Return one row of token ids and the position of its mask token or of its last token.

        Raises:
            UserError: The row is too long, has no class of the task, or comes with demonstrations;
                the message names ``example.where``.
        """
        refuse_demonstrations(shown, self._text_key)
        if not 0 <= example.label < len(self.label_ids):
            words = f"the task has {len(self.label_ids)} words"
            raise bad_data(example.where, f"there is no word for class {example.label}; {words}")
        before, after = self._filled(example)
        row = tuple(self._tokens([before + after])[0])
        if len(row) > self._max_length:
            raise bad_data(
                example.where,
                f"the row has {len(row)} tokens, but task.max_length is {self._max_length}; raise "
                "it, or set task.source._target_=lozo_bench.tasks.fewshot.FewShot, which drops "
                "such rows",
            )
        return Encoded(
            rows=(row,), answer=((self._scored_position(row, before),),), label=example.label
        )

    def fits(self, examples: Sequence[Example]) -> list[bool]:
        """Return for each row whether it has at most ``max_length`` tokens, with special tokens."""
        fit = []
        for start in range(0, len(examples), ROWS_PER_CHUNK):
            chunk = examples[start : start + ROWS_PER_CHUNK]
            texts = ["".join(self._filled(example)) for example in chunk]
            fit += [len(row) <= self._max_length for row in self._tokens(texts)]
        return fit

    def _scored_position(self, row: Sequence[int], before: str) -> int:
        if not self._masked:
            return len(row) - 1 - self._ending
        # The text of a row may itself contain the mask token, so skip those before the template's.
        earlier = before.count(str(self._tokenizer.mask_token))
        positions = [n for n, token in enumerate(row) if token == self._tokenizer.mask_token_id]
        return positions[earlier]

    def _filled(self, example: Example) -> tuple[str, str]:
        """Return the text before the mask and the text from the mask on.

        A causal model has no mask; its whole text is the first part and the second part is empty.
        """
        fields = {**example.fields, **self._extra_fields}
        before = self._before.fill(fields, example.where)
        if not self._masked:
            return before, ""
        return before, f"{self._tokenizer.mask_token}{self._after.fill(fields, example.where)}"

    def _check(self, text: str) -> None:
        names = Template(text, self._text_key).fields
        if names.count(MASK) != int(self._masked):
            wanted = "{mask} in it exactly once" if self._masked else "no {mask} in it"
            raise bad_value(self._text_key, text, f"a text with {wanted}")
        if not set(names) - {MASK, PLACEHOLDER}:
            raise bad_value(self._text_key, text, "a text with at least one {field} in it")
        if self._masked and self._tokenizer.mask_token_id is None:
            raise UserError(
                f"{self._text_key}: given {text!r}, but the model's tokenizer has no mask token; "
                "choose a masked model such as roberta-large"
            )

    def _first_tokens(self, words: Sequence[str], key: str) -> tuple[int, ...]:
        if len(words) < 2 or not all(word.strip() for word in words):
            raise bad_value(key, list(words), "two or more words that are not blank")
        ids = [row[0] for row in self._tokens(list(words), special=False)]
        if self._tokenizer.unk_token_id in ids and self._tokenizer.unk_token_id is not None:
            raise bad_value(key, list(words), "words that the model's tokenizer knows")
        if len(set(ids)) < len(ids):
            tokens = ", ".join(map(str, self._tokenizer.convert_ids_to_tokens(ids)))
            raise bad_value(
                key, list(words), f"words whose first tokens differ; these begin with {tokens}"
            )
        return tuple(ids)

    def _tokens(self, texts: list[str], special: bool = True) -> list[list[int]]:
        encoding = self._tokenizer(texts, add_special_tokens=special, verbose=False)
        ids: list[list[int]] = encoding["input_ids"]
        return ids
