"""A row of pre-training text, and its token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer


@dataclass(frozen=True, slots=True)
class Row:
    """A text with an answer that the model must predict.

    ``answer`` is one word with its leading space, or empty if the row has no answer.
    """

    before: str
    answer: str = ""
    after: str = ""

    @property
    def text(self) -> str:
        """The whole row as one string."""
        return self.before + self.answer + self.after


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids including special tokens, and the answer's position (-1 if there is none)."""

    ids: tuple[int, ...]
    answer: int


def encode(rows: Sequence[Row], tokenizer: Tokenizer, longest: int) -> list[Encoded]:
    """Encode every row as ``<s>`` text ``</s>``; drop rows of more than ``longest`` tokens.

    The three parts of a row are tokenised separately, as fine-tuning does with prompts.
    """
    start, end = tokenizer.token_to_id("<s>"), tokenizer.token_to_id("</s>")
    parts = [_ids(tokenizer, [getattr(row, name) for row in rows]) for name in Row.__slots__]
    encoded = []
    for before, answer, after in zip(*parts, strict=True):
        if len(answer) > 1:
            raise ValueError(f"an answer is {len(answer)} tokens; the vocabulary is too small")
        ids = (start, *before, *answer, *after, end)
        if len(ids) <= longest:
            encoded.append(Encoded(ids, 1 + len(before) if answer else -1))
    return encoded


def _ids(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
