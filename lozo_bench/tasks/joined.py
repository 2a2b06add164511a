"""C-LoRA's prompts: one joined text, and for each class the first piece of its word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lozo_bench.errors import UserError, bad_data, bad_value
from lozo_bench.tasks.base import Encoded, Example
from lozo_bench.tasks.forms import Form
from lozo_bench.tasks.masked import refuse_shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MASK, PLACEHOLDER = "mask", "placeholder"
PLACEHOLDER_IDS = range(1000, 1050)

# Rows tokenised at once where only lengths are wanted: all rows of a data set do not fit memory.
AT_ONCE = 1000


class JoinedPrompt:
    """Turns an example into one row, at one place of which the classes' words are compared.

    ``text`` has fields in it (see `Form`). The whole is tokenised at once, with the tokenizer's own
    special tokens. For a masked model it has ``{mask}`` once, which is where the classes are read;
    without it they are read at the last token, as what a causal model would go on with.
    ``{placeholder}`` are the model's tokens 1000 to 1049 as text, which Black-Box-Tuning puts in
    front.

    ``label_ids[i]`` is the FIRST piece of word i WITHOUT a space before it. Rows longer than
    ``max_length`` are not cut: `fits` tells which there are, for a source that drops them. Source:
    dataloader.py and dataloader_gpt.py of the C-LoRA release, spec clora_flora_bbt sections 4.2 to
    4.4.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        text: str,
        words: Sequence[str],
        max_length: int,
        masked: bool,
    ) -> None:
        """Read the text. Raises UserError naming the ``task.*`` key that is wrong."""
        self._text_key = "task.template" if masked else "task.prompt"
        words_key = "task.label_words" if masked else "task.options"
        if max_length < 1:
            raise bad_value("task.max_length", max_length, "a whole number >= 1")
        self._tokenizer, self._max_length, self._masked = tokenizer, max_length, masked
        self._check(text)
        before, _, after = text.partition(f"{{{MASK}}}")
        self._before, self._after = Form(before, self._text_key), Form(after, self._text_key)
        self._given = {PLACEHOLDER: str(tokenizer.decode(list(PLACEHOLDER_IDS)))}
        self.label_ids = self._first_pieces(words, words_key)

    def encode(self, example: Example, shown: Sequence[Example] = ()) -> Encoded:
        """One row of token ids; the answer is the mask's position, or the last.

        Raises UserError with ``example.where`` for a row that is too long or has no such class,
        and for demonstrations.
        """
        refuse_shown(shown, self._text_key)
        if not 0 <= example.label < len(self.label_ids):
            words = f"the task has {len(self.label_ids)} words"
            raise bad_data(example.where, f"no word for class {example.label}; {words}")
        before, after = self._filled(example)
        row = tuple(self._tokens([before + after])[0])
        if len(row) > self._max_length:
            raise bad_data(
                example.where,
                f"{len(row)} tokens, and task.max_length is {self._max_length}; raise it, or use "
                "task.source=FewShot, which drops such rows",
            )
        return Encoded(rows=(row,), answer=((self._place(row, before),),), label=example.label)

    def fits(self, examples: Sequence[Example]) -> list[bool]:
        """Which rows have no more than ``max_length`` tokens, special tokens included."""
        fit = []
        for start in range(0, len(examples), AT_ONCE):
            some = examples[start : start + AT_ONCE]
            texts = ["".join(self._filled(example)) for example in some]
            fit += [len(row) <= self._max_length for row in self._tokens(texts)]
        return fit

    def _place(self, row: Sequence[int], before: str) -> int:
        if not self._masked:
            return len(row) - 1
        # A row's own text may spell the mask, too.
        earlier = before.count(str(self._tokenizer.mask_token))
        places = [n for n, token in enumerate(row) if token == self._tokenizer.mask_token_id]
        return places[earlier]

    def _filled(self, example: Example) -> tuple[str, str]:
        """The text up to the mask, and from it on; all of it first where there is none."""
        fields = {**example.fields, **self._given}
        before = self._before.fill(fields, example.where)
        if not self._masked:
            return before, ""
        return before, f"{self._tokenizer.mask_token}{self._after.fill(fields, example.where)}"

    def _check(self, text: str) -> None:
        names = Form(text, self._text_key).fields
        if names.count(MASK) != int(self._masked):
            wanted = "{mask} in it exactly once" if self._masked else "no {mask} in it"
            raise bad_value(self._text_key, text, f"a text with {wanted}")
        if not set(names) - {MASK, PLACEHOLDER}:
            raise bad_value(self._text_key, text, "a text with at least one {field} in it")
        if self._masked and self._tokenizer.mask_token_id is None:
            raise UserError(
                f"{self._text_key}: given {text!r}, and the model's tokenizer has no mask token; "
                "choose a masked model such as roberta-large"
            )

    def _first_pieces(self, words: Sequence[str], key: str) -> tuple[int, ...]:
        if len(words) < 2 or not all(word.strip() for word in words):
            raise bad_value(key, list(words), "two or more words that are not blank")
        ids = [row[0] for row in self._tokens(list(words), special=False)]
        if self._tokenizer.unk_token_id in ids and self._tokenizer.unk_token_id is not None:
            raise bad_value(key, list(words), "words that the model's tokenizer knows")
        if len(set(ids)) < len(ids):
            pieces = ", ".join(map(str, self._tokenizer.convert_ids_to_tokens(ids)))
            raise bad_value(key, list(words), f"words that begin differently; these with {pieces}")
        return tuple(ids)

    def _tokens(self, texts: list[str], special: bool = True) -> list[list[int]]:
        encoding = self._tokenizer(texts, add_special_tokens=special, verbose=False)
        ids: list[list[int]] = encoding["input_ids"]
        return ids
