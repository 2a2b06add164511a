"""LM-BFF's prompts for masked models: a template of macros, one mask token, one word per label."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lozo_bench.errors import UserError, bad_data, bad_value
from lozo_bench.tasks.base import Encoded, Example

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

SENTENCE = re.compile(r"(?P<space>\+?)sent(?P<lower>l?)(?P<drop>-?)_(?P<index>\d+)")
LOOKS_LIKE_SENTENCE = re.compile(r"\+?sent")
MACROS = "sent_0, sent-_0, sentl_0 (each also with + in front and for 1, 2, ...), cls, sep, mask"


@dataclass(frozen=True, slots=True)
class Sentence:
    """A place for the text of field number ``index``, and what is done to it first."""

    index: int
    space: bool
    lower: bool
    drop_last: bool

    def text(self, original: str) -> str:
        """``original`` without its last character, first letter lower, or a space in front."""
        text = original[:-1] if self.drop_last else original
        text = text[:1].lower() + text[1:] if self.lower else text
        return f" {text}" if self.space else text


Part = Sentence | tuple[int, ...]


def refuse_shown(shown: Sequence[Example], key: str) -> None:
    """Raise UserError if demonstrations are given to a prompt, of ``key``, without a place."""
    if shown:
        raise UserError(
            f"{key}: this prompt has no place for demonstrations, and {len(shown)} were given; "
            "allowed: a causal model with task.prompt, or a method that shows none"
        )


class MaskedPrompt:
    """Turns an example into one row with one mask token, whose position is the answer.

    A template is a list of parts between ``*``. Each part is tokenised by itself and the tokens are
    joined, which differs from tokenising the joined text:

    - ``cls``, ``sep`` (or ``sep+``), ``mask``: the tokenizer's special tokens;
    - ``sent_0``: the first field's text (``sent_1`` the second); ``sent-_0`` without its last
      character, ``sentl_0`` with its first letter in lower case, ``+sent_0`` with a space in front;
    - anything else is literal text with ``_`` for a space; one character is looked up as a token.

    A sentence keeps its first ``first_sentence_limit`` (field 0) or ``other_sentence_limit``
    tokens, the row its first ``max_length``. ``label_ids[i]`` is the token of `` `` + the word of
    class i. Source: dataset.py of LM-BFF, spec section 3.6.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: str,
        label_words: Sequence[str],
        max_length: int,
        first_sentence_limit: int | None = None,
        other_sentence_limit: int | None = None,
    ) -> None:
        """Read the template. Raises UserError naming the ``task.*`` key that is wrong."""
        limits = {
            "max_length": max_length,
            "first_sentence_limit": first_sentence_limit,
            "other_sentence_limit": other_sentence_limit,
        }
        for key, limit in limits.items():
            if limit is not None and limit < 1:
                raise bad_value(f"task.{key}", limit, "a whole number >= 1")
        self._tokenizer = tokenizer
        self._template = template
        self._max_length = max_length
        self._first_limit, self._other_limit = first_sentence_limit, other_sentence_limit
        self._mask = self._special("mask")
        parts = template.split("*")
        if parts.count("mask") != 1:
            raise bad_value("task.template", template, "a template with *mask* in it exactly once")
        place = parts.index("mask")
        self._before = [self._part(part) for part in parts[:place]]
        self._after = [self._part(part) for part in parts[place + 1 :]]
        if not any(isinstance(part, Sentence) for part in self._before + self._after):
            raise bad_value("task.template", template, "a template with *sent_0* in it")
        self.label_ids = self._label_ids(label_words)

    def encode(self, example: Example, shown: Sequence[Example] = ()) -> Encoded:
        """One row of token ids; the answer is the mask's position.

        Raises UserError with ``example.where`` if the mask would be cut off, and for
        demonstrations, which LM-BFF's templates without them have no place for.
        """
        refuse_shown(shown, "task.template")
        if not 0 <= example.label < len(self.label_ids):
            words = f"task.label_words has {len(self.label_ids)} words"
            raise bad_data(example.where, f"no label word for class {example.label}; {words}")
        texts = list(example.fields.values())
        before = self._fill(self._before, texts)
        if len(before) >= self._max_length:
            raise bad_data(
                example.where,
                f"the mask would be token {len(before) + 1}, and task.max_length is "
                f"{self._max_length}; raise it, or set task.first_sentence_limit",
            )
        row = (*before, self._mask, *self._fill(self._after, texts))[: self._max_length]
        return Encoded(rows=(row,), answer=((len(before),),), label=example.label)

    def _fill(self, parts: list[Part], texts: list[str]) -> list[int]:
        ids: list[int] = []
        for part in parts:
            if not isinstance(part, Sentence):
                ids += part
                continue
            if part.index >= len(texts):
                allowed = f"sentences 0 to {len(texts) - 1}, as the task has {len(texts)} fields"
                raise bad_value("task.template", self._template, allowed)
            limit = self._other_limit if part.index else self._first_limit
            ids += self._tokens(part.text(texts[part.index]))[:limit]
        return ids

    def _part(self, part: str) -> Part:
        if part in ("cls", "sep", "sep+"):
            return (self._special(part.removesuffix("+")),)
        found = SENTENCE.fullmatch(part)
        if found:
            return Sentence(
                int(found["index"]), bool(found["space"]), bool(found["lower"]), bool(found["drop"])
            )
        if LOOKS_LIKE_SENTENCE.match(part):
            raise bad_value(
                "task.template", self._template, f"macros {MACROS}; {part!r} is none of them"
            )
        text = part.replace("_", " ")
        return (self._single(text),) if len(text) == 1 else tuple(self._tokens(text))

    def _single(self, character: str) -> int:
        """The id of one character as a token, as the published templates have it."""
        tokens = self._tokenizer.get_vocab()
        if character not in tokens:
            raise bad_value(
                "task.template",
                self._template,
                f"one-character literals that are tokens of the model; {character!r} is none",
            )
        return tokens[character]

    def _special(self, kind: str) -> int:
        token_id = getattr(self._tokenizer, f"{kind}_token_id")
        if token_id is None:
            raise UserError(
                f"task.template: given {self._template!r}, and the model's tokenizer has no {kind} "
                "token; choose a masked model such as roberta-large"
            )
        return int(token_id)

    def _label_ids(self, words: Sequence[str]) -> tuple[int, ...]:
        if len(words) < 2:
            raise bad_value("task.label_words", list(words), "two or more words, one per label")
        if not all(word.strip() for word in words):
            raise bad_value("task.label_words", list(words), "words that are not blank")
        ids = []
        for word in words:
            tokens = self._tokens(f" {word}")
            if len(tokens) != 1:
                names = self._tokenizer.convert_ids_to_tokens(tokens)
                raise bad_value(
                    "task.label_words",
                    word,
                    f"a word that is one token after a space; this one is {len(tokens)}: {names}",
                )
            if tokens[0] == self._tokenizer.unk_token_id:
                raise bad_value("task.label_words", word, "a word that the model's tokenizer knows")
            ids.append(tokens[0])
        if len(set(ids)) < len(ids):
            raise bad_value("task.label_words", list(words), "different words, one per label")
        return tuple(ids)

    def _tokens(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids
