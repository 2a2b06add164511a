"""MeZO's prompts for causal models, which end with one of several options or with an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lozo_bench.errors import UserError, bad_data, bad_value
from lozo_bench.tasks.base import Encoded, Example
from lozo_bench.tasks.ending import ending_tokens
from lozo_bench.tasks.template import Template

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

# Stands after each demonstration.
SEPARATOR = "\n\n"

# The token ids of a row, the positions of its option or answer, and whether the row was cut.
Row = tuple[tuple[int, ...], tuple[int, ...], bool]


class CausalPrompt:
    """Encodes an example as one row per option; the option's tokens are scored.

    All texts are templates, see `template.py`. An option follows the prompt directly, so one of
    the two must contain the space or newline between them. If a row has its own options, they
    replace the task's. Spaces, but no other white space, are stripped around prompt plus option;
    leading white space of any kind is stripped from the whole text. A row longer than
    ``max_length`` loses tokens on the left, after the BOS token. An option is never cut.

    With ``answer``, the model generates an answer instead of choosing an option. The only row is
    then the prompt with the first correct answer, and ``max_new_tokens`` of ``max_length`` are
    kept free for the generated tokens. If the answer is only scored (``max_new_tokens`` is None), a
    longer row loses tokens at its end instead, as HeteroLoRA's instruction data.

    A demonstration is a prompt with its correct option, stripped of white space. Demonstrations
    are joined by empty lines and stand before the example.

    Source: utils.py:105-172 (encoding) and templates.py (prompts) in large_models of the MeZO
    release. MeZO computes an option's length as the difference between the lengths of two
    tokenisations. Here an option's tokens are found by their offsets in the text, so a token that
    crosses the boundary between prompt and option belongs to the option.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompt: str,
        options: Sequence[str] = (),
        max_length: int = 2048,
        *,
        answer: str | None = None,
        calibration: str | None = None,
        max_new_tokens: int | None = 50,
    ) -> None:
        """Parse the texts.

        Args:
            tokenizer: A fast tokenizer.
            prompt: The template of the prompt.
            options: The templates of the options. Empty if every row has its own options or if the
                model generates an answer.
            max_length: The largest number of tokens in a row.
            answer: The template of a generated answer, with ``{answer}`` in it.
            calibration: The template that replaces the prompt when options are scored relative to
                their probability without the row (surface form calibration, SFC).
            max_new_tokens: How many tokens the model may generate; None if it generates none.

        Raises:
            UserError: A value is not allowed; the message names its ``task.*`` key.
        """
        if not tokenizer.is_fast:
            raise UserError(
                "model.path: the model has a slow tokenizer, which does not report the position of "
                "each token in the text; choose a model that has a tokenizer.json"
            )
        if max_length < 1:
            raise bad_value("task.max_length", max_length, "a whole number >= 1")
        written = 0 if answer is None or max_new_tokens is None else max_new_tokens
        self._cuts_end = answer is not None and max_new_tokens is None
        if answer is not None and not self._cuts_end and not 1 <= written < max_length:
            allowed = f"a whole number from 1 to {max_length - 1}, below task.max_length"
            raise bad_value("task.max_new_tokens", max_new_tokens, allowed)
        _check_options(options, answer)
        self._tokenizer, self._ending = tokenizer, ending_tokens(tokenizer)
        self._prompt = Template(prompt, "task.prompt")
        if not self._prompt.fields:
            raise bad_value("task.prompt", prompt, "a text with at least one {field} in it")
        self._options = [Template(option, "task.options") for option in options]
        self._answer = None if answer is None else Template(answer, "task.answer")
        if self._answer is not None and "answer" not in self._answer.fields:
            raise bad_value("task.answer", answer, "a text with {answer} in it")
        self._calibration = (
            None if calibration is None else Template(calibration, "task.calibration")
        )
        self._max_row_length = max_length - written

    def encode(self, example: Example, shown: Sequence[Example] = ()) -> Encoded:
        """Return a row of token ids per option and the positions of the option's tokens in it.

        Raises:
            UserError: An option is longer than the row may be; the message names ``example.where``.
        """
        return self._encoded(self._prompt, example, shown)

    def encode_calibration(self, example: Example, shown: Sequence[Example] = ()) -> Encoded:
        """Return the same options after the calibration text instead of the prompt.

        Raises:
            UserError: The task has no calibration text.
        """
        if self._calibration is None:
            allowed = "a text that replaces the prompt for calibration, for example ''"
            raise bad_value("task.calibration", None, allowed)
        return self._encoded(self._calibration, example, shown)

    def _encoded(self, prompt: Template, example: Example, shown: Sequence[Example]) -> Encoded:
        before = "".join(self._demonstration(other) + SEPARATOR for other in shown)
        question = prompt.fill(example.fields, example.where)
        if self._answer is not None:
            text = self._first_answer(example)
            row, answer, cut = self._row(before, question, text, example.where)
            start = self._start((before + question.strip(" ")).lstrip())
            return Encoded(
                rows=(row,),
                answer=(answer,),
                label=0,
                prompt=self._cut(start),
                answers=example.answers,
                cut=cut or len(start) > self._max_row_length,
            )
        options = self._options_of(example)
        rows = [self._row(before, question, option, example.where) for option in options]
        return Encoded(
            rows=tuple(row for row, _, _ in rows),
            answer=tuple(answer for _, answer, _ in rows),
            label=example.label,
            golds=example.golds,
            cut=any(cut for _, _, cut in rows),
        )

    def _demonstration(self, example: Example) -> str:
        if self._answer is not None:
            correct = self._first_answer(example)
        else:
            correct = self._options_of(example)[example.label]
        return (self._prompt.fill(example.fields, example.where) + correct).strip()

    def _options_of(self, example: Example) -> list[str]:
        """Return the options of an example. Raise UserError if there is none for its label."""
        if example.options:
            return list(example.options)
        if not 0 <= example.label < len(self._options):
            raise bad_data(
                example.where,
                f"there is no option for class {example.label}; task.options has "
                f"{len(self._options)} options",
            )
        return [option.fill(example.fields, example.where) for option in self._options]

    def _first_answer(self, example: Example) -> str:
        """Return the text of the first correct answer. Raise UserError if there is none."""
        assert self._answer is not None
        if not example.answers or not example.answers[0].strip():
            raise bad_data(example.where, "the row has no answer, which task.answer needs")
        return self._answer.fill({**example.fields, "answer": example.answers[0]}, example.where)

    def _row(self, before: str, prompt: str, option: str, where: str) -> Row:
        start = (before + prompt.strip(" ")).lstrip()
        text = (before + (prompt + option).strip(" ")).lstrip()
        encoding = self._tokenizer(
            text, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False
        )
        ids: list[int] = encoding["input_ids"]
        spans: list[tuple[int, int]] = encoding["offset_mapping"]
        special: list[int] = encoding["special_tokens_mask"]
        inside = (n for n, (first, last) in enumerate(spans) if last > max(first, len(start)))
        first_inside = next(inside, None)
        if first_inside is None:
            raise bad_data(where, f"the option {option!r} of task.options has no token of its own")
        # Some tokenizers report an empty span for white space, so every later token counts, except
        # the special tokens at the end.
        answer = [n for n in range(first_inside, len(ids)) if not special[n]]
        if answer[0] == 0:
            raise bad_data(
                where,
                "the prompt is empty and the tokenizer adds no special token in front, so the "
                "first token of the option cannot be scored",
            )
        if self._cuts_end:
            return self._without_end(ids, answer, where)
        excess = max(len(ids) - self._max_row_length, 0)
        # The model predicts each token from the tokens before it, so the first one has no score.
        needed_before = max(self._protected(ids), 1)
        if answer[0] - excess < needed_before:
            raise bad_data(
                where,
                f"an option of task.options needs {len(ids) - answer[0] + needed_before} tokens, "
                f"but task.max_length leaves only {self._max_row_length}; raise it",
            )
        return self._cut(ids), tuple(position - excess for position in answer), excess > 0

    def _without_end(self, ids: list[int], answer: list[int], where: str) -> Row:
        length = self._max_row_length
        if answer[0] >= length:
            raise bad_data(
                where,
                f"the prompt alone has {answer[0]} tokens, but task.max_length leaves only "
                f"{length}; raise it",
            )
        return tuple(ids[:length]), tuple(n for n in answer if n < length), len(ids) > length

    def _cut(self, ids: list[int]) -> tuple[int, ...]:
        """Return ``ids`` cut to the maximum length on the left, but with the BOS token."""
        excess, protected = max(len(ids) - self._max_row_length, 0), self._protected(ids)
        return (*ids[:protected], *ids[protected + excess :])

    def _protected(self, ids: list[int]) -> int:
        """Return how many tokens at the start are never cut: 1 if there is a BOS token, else 0."""
        return int(bool(ids) and ids[0] == self._tokenizer.bos_token_id)

    def _start(self, text: str) -> list[int]:
        """Return the tokens of a text that is continued, so without an end token behind it."""
        ids: list[int] = self._tokenizer(text, verbose=False)["input_ids"]
        return ids[: len(ids) - self._ending]


def _check_options(options: Sequence[str], answer: str | None) -> None:
    """Raise UserError unless the options are two or more different texts, or none.

    There are none if every row has its own options or if the model generates an answer.
    """
    if answer is not None and options:
        raise bad_value(
            "task.options", list(options), "an empty list, because task.answer is given"
        )
    if len(options) == 1 or len({option.strip(" ") for option in options}) < len(options):
        raise bad_value("task.options", list(options), "two or more different texts")
    if not all(option.strip(" ") for option in options):
        raise bad_value("task.options", list(options), "texts that are not blank")
