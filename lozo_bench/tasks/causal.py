"""MeZO's prompts for causal models: a text that ends in one of several options."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING

from lozo_bench.errors import UserError, bad_data, bad_value, did_you_mean
from lozo_bench.tasks.base import Encoded, Example

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers import PreTrainedTokenizerBase

# (literal text, the field that follows it or None, whether to strip that field)
Piece = tuple[str, str | None, bool]


class CausalPrompt:
    """Turns an example into one row per option, whose answer are the option's tokens.

    ``prompt`` is text with ``{field}`` for a field's text, or ``{field:strip}`` for it without the
    white space around it; braces of its own are doubled. An option follows it directly, so that
    either it or the prompt brings the space or newline between them. Spaces (only spaces) are
    stripped around the whole and all white space before it. Rows longer than ``max_length`` lose
    tokens on the left, after the BOS token. Source: utils.py of MeZO's large_models, spec sections
    3.2 and 3.3; there the option's length is the difference of two tokenisations, here its tokens
    are found by their offsets, so that a token across the boundary counts as the option's.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompt: str,
        options: Sequence[str],
        max_length: int,
    ) -> None:
        """Read the prompt. Raises UserError naming the ``task.*`` key that is wrong."""
        if not tokenizer.is_fast:
            raise UserError(
                "model.path: its tokenizer is of the slow kind, which does not say where a token "
                "is in the text; choose a model that has a tokenizer.json"
            )
        if max_length < 1:
            raise bad_value("task.max_length", max_length, "a whole number >= 1")
        if len(options) < 2 or len({option.strip(" ") for option in options}) < len(options):
            raise bad_value("task.options", list(options), "two or more different texts")
        if not all(option.strip(" ") for option in options):
            raise bad_value("task.options", list(options), "texts that are not blank")
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._pieces = _pieces(prompt)
        self._options = tuple(options)
        self._max_length = max_length

    def encode(self, example: Example) -> Encoded:
        """A row of token ids per option; the answer are the positions of the option's tokens.

        Raises UserError with ``example.where`` if an option does not fit.
        """
        if not 0 <= example.label < len(self._options):
            options = f"task.options has {len(self._options)} options"
            raise bad_data(example.where, f"no option for class {example.label}; {options}")
        prompt = self._fill(example.fields)
        encoded = [self._option(prompt, option, example.where) for option in self._options]
        rows, answers = zip(*encoded, strict=True)
        return Encoded(rows=rows, answer=answers, label=example.label)

    def _option(
        self, prompt: str, option: str, where: str
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        start = prompt.strip(" ").lstrip()
        text = (prompt + option).strip(" ").lstrip()
        encoding = self._tokenizer(text, return_offsets_mapping=True, verbose=False)
        ids: list[int] = encoding["input_ids"]
        # special tokens have the empty span (0, 0)
        spans: list[tuple[int, int]] = encoding["offset_mapping"]
        answer = [n for n, (first, last) in enumerate(spans) if last > max(first, len(start))]
        if not answer:
            raise bad_data(where, f"the option {option!r} of task.options has no token of its own")
        if answer[0] == 0:
            raise bad_data(where, "the prompt is empty, and the tokenizer adds no first token")
        return self._truncate(ids, answer, where)

    def _truncate(
        self, ids: list[int], answer: list[int], where: str
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        excess = len(ids) - self._max_length
        if excess <= 0:
            return tuple(ids), tuple(answer)
        kept = int(ids[0] == self._tokenizer.bos_token_id)
        # A model predicts tokens from those before them: the row's first token has no score.
        if answer[0] - excess < max(kept, 1):
            raise bad_data(
                where,
                f"an option of task.options needs {len(ids) - answer[0] + max(kept, 1)} tokens, "
                f"and task.max_length is {self._max_length}; raise it",
            )
        row = (*ids[:kept], *ids[kept + excess :])
        return row, tuple(position - excess for position in answer)

    def _fill(self, fields: Mapping[str, str]) -> str:
        text = ""
        for literal, field, strip in self._pieces:
            text += literal
            if field is None:
                continue
            if field not in fields:
                allowed = f"the fields {', '.join(fields)}{did_you_mean(field, fields)}"
                raise bad_value("task.prompt", self._prompt, f"{allowed}; {field!r} is none")
            text += fields[field].strip() if strip else fields[field]
        return text


def _pieces(prompt: str) -> list[Piece]:
    try:
        parsed = list(string.Formatter().parse(prompt))
    except ValueError as error:
        raise bad_value("task.prompt", prompt, f"balanced braces ({error})") from error
    for _, field, form, conversion in parsed:
        if field is not None and (not field.isidentifier() or form not in ("", "strip")):
            raise bad_value("task.prompt", prompt, "{field} or {field:strip} between the text")
        if conversion:
            raise bad_value("task.prompt", prompt, f"no conversion such as !{conversion}")
    if not any(field for _, field, _, _ in parsed):
        raise bad_value("task.prompt", prompt, "a text with at least one {field} in it")
    return [(literal, field, form == "strip") for literal, field, form, _ in parsed]
