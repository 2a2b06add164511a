"""LM-BFF's prompts for masked models: a template with one mask token, and one word per label."""

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
    """A part of a template that stands for the text of a field.

    Attributes:
        index: The number of the field.
        space: Whether to put a space in front of the text.
        lower: Whether to change the first letter to lower case.
        drop_last: Whether to drop the last character.
    """

    index: int
    space: bool
    lower: bool
    drop_last: bool

    def text(self, original: str) -> str:
        """Return the text of the field with the changes that the template asks for."""
        text = original[:-1] if self.drop_last else original
        text = text[:1].lower() + text[1:] if self.lower else text
        return f" {text}" if self.space else text


# A part of a template: the text of a field, or the ids of literal tokens.
Part = Sentence | tuple[int, ...]


def refuse_demonstrations(shown: Sequence[Example], key: str) -> None:
    """Raise UserError if there are demonstrations; ``key`` names the prompt without them."""
    if shown:
        raise UserError(
            f"{key}: this prompt cannot show demonstrations, but {len(shown)} were given; "
            "allowed: a causal model with task.prompt, or a method without demonstrations"
        )


class MaskedPrompt:
    """Encodes an example as one row with one mask token, at which the label words are scored.

    A template is a sequence of parts between ``*``. Each part is tokenised separately and the
    tokens are joined, which gives other tokens than the joined text would:

    - ``cls``, ``sep`` (or ``sep+``) and ``mask`` are the special tokens of the tokenizer;
    - ``sent_0`` is the text of the first field and ``sent_1`` that of the second. ``sent-_0`` is
      the text without its last character, ``sentl_0`` has its first letter in lower case, and
      ``+sent_0`` has a space in front;
    - any other part is literal text, in which ``_`` means a space. A single character is looked up
      in the vocabulary instead of being tokenised.

    ``label_ids[i]`` is the token of a space followed by the word of class i.

    Source: src/dataset.py:82-184 in medium_models of the MeZO release, which is LM-BFF's code.
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
        """Parse the template.

        Args:
            tokenizer: The tokenizer of the model.
            template: The template.
            label_words: The word of each class; each must be a single token.
            max_length: Longer rows are cut to this number of tokens at the end.
            first_sentence_limit: The text of field 0 is cut to this number of tokens.
            other_sentence_limit: The texts of the other fields are cut to this number of tokens.

        Raises:
            UserError: A value is not allowed; the message names its ``task.*`` key.
        """
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
        mask = parts.index("mask")
        self._before = [self._parse(part) for part in parts[:mask]]
        self._after = [self._parse(part) for part in parts[mask + 1 :]]
        if not any(isinstance(part, Sentence) for part in self._before + self._after):
            raise bad_value("task.template", template, "a template with *sent_0* in it")
        self.label_ids = self._label_ids(label_words)

    def encode(self, example: Example, shown: Sequence[Example] = ()) -> Encoded:
        """Return one row of token ids and the position of its mask token.

        Raises:
            UserError: The mask would be cut off, the row has no class of the task, or it comes with
                demonstrations, which these templates of LM-BFF cannot show.
        """
        refuse_demonstrations(shown, "task.template")
        if not 0 <= example.label < len(self.label_ids):
            words = f"task.label_words has {len(self.label_ids)} words"
            raise bad_data(
                example.where, f"there is no label word for class {example.label}; {words}"
            )
        texts = list(example.fields.values())
        before, cut_before = self._fill(self._before, texts)
        if len(before) >= self._max_length:
            raise bad_data(
                example.where,
                f"the mask would be token {len(before) + 1}, but task.max_length is "
                f"{self._max_length}; raise it, or set task.first_sentence_limit",
            )
        after, cut_after = self._fill(self._after, texts)
        row = (*before, self._mask, *after)
        return Encoded(
            rows=(row[: self._max_length],),
            answer=((len(before),),),
            label=example.label,
            cut=cut_before or cut_after or len(row) > self._max_length,
        )

    def _fill(self, parts: list[Part], texts: list[str]) -> tuple[list[int], bool]:
        """Return the tokens of these parts, and whether a text was longer than its limit."""
        ids: list[int] = []
        cut = False
        for part in parts:
            if not isinstance(part, Sentence):
                ids += part
                continue
            if part.index >= len(texts):
                allowed = (
                    f"sentences 0 to {len(texts) - 1}, because the task has {len(texts)} fields"
                )
                raise bad_value("task.template", self._template, allowed)
            limit = self._other_limit if part.index else self._first_limit
            sentence = self._tokens(part.text(texts[part.index]))
            ids += sentence[:limit]
            cut |= limit is not None and len(sentence) > limit
        return ids, cut

    def _parse(self, part: str) -> Part:
        if part in ("cls", "sep", "sep+"):
            return (self._special(part.removesuffix("+")),)
        found = SENTENCE.fullmatch(part)
        if found:
            return Sentence(
                int(found["index"]), bool(found["space"]), bool(found["lower"]), bool(found["drop"])
            )
        if LOOKS_LIKE_SENTENCE.match(part):
            raise bad_value(
                "task.template",
                self._template,
                f"the macros {MACROS}; {part!r} is not one of them",
            )
        text = part.replace("_", " ")
        return (self._character_id(text),) if len(text) == 1 else tuple(self._tokens(text))

    def _character_id(self, character: str) -> int:
        """Return the token id of one character, looked up in the vocabulary as LM-BFF does it."""
        vocabulary = self._tokenizer.get_vocab()
        if character not in vocabulary:
            raise bad_value(
                "task.template",
                self._template,
                "single characters that are tokens of the model's tokenizer; "
                f"{character!r} is not a token",
            )
        return vocabulary[character]

    def _special(self, kind: str) -> int:
        token_id = getattr(self._tokenizer, f"{kind}_token_id")
        if token_id is None:
            raise UserError(
                f"task.template: given {self._template!r}, but the model's tokenizer has no {kind} "
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
                    "a word that is one token after a space; this word has "
                    f"{len(tokens)} tokens: {names}",
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
