"""MeZO's prompts for causal models: a text that ends in one of several options, or in an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lozo_bench.errors import UserError, bad_data, bad_value
from lozo_bench.tasks.base import Encoded, Example
from lozo_bench.tasks.forms import Form

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

# Between demonstrations, and between them and what is asked.
BETWEEN = "\n\n"

Row = tuple[tuple[int, ...], tuple[int, ...]]


class CausalPrompt:
    """Turns an example into one row per option, whose answer are the option's tokens.

    All texts may hold ``{field}`` and ``{field:form,form}``, see `lozo_bench.tasks.forms`. An
    option follows the prompt directly, so that either brings the space or newline between them;
    options that a row has of its own stand before the task's. Spaces (only spaces) are stripped
    around prompt and option together, and all white space before the whole. Rows longer than
    ``max_length`` lose tokens on the left, after the BOS token; an option never does.

    With ``answer``, a text with ``{answer}`` in it, nothing is chosen: the one row is the prompt
    and the first answer, and ``max_new_tokens`` of ``max_length`` are kept free for writing.

    ``calibration`` stands for the prompt where options are scored relative to it (SFC).

    Demonstrations are prompts with their right option, each stripped, one above the other with an
    empty line between, the example below. Source: utils.py of MeZO's large_models, spec sections
    2.7, 3.2 and 3.3; there the option's length is the difference of two tokenisations, here its
    tokens are found by their offsets, so that a token across the boundary counts as the option's.
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
        max_new_tokens: int = 50,
    ) -> None:
        """Read the texts. Raises UserError naming the ``task.*`` key that is wrong."""
        if not tokenizer.is_fast:
            raise UserError(
                "model.path: its tokenizer is of the slow kind, which does not say where a token "
                "is in the text; choose a model that has a tokenizer.json"
            )
        if max_length < 1:
            raise bad_value("task.max_length", max_length, "a whole number >= 1")
        if answer is not None and not 1 <= max_new_tokens < max_length:
            allowed = f"a whole number from 1 to {max_length - 1}, below task.max_length"
            raise bad_value("task.max_new_tokens", max_new_tokens, allowed)
        _check_options(options, answer)
        self._tokenizer = tokenizer
        self._prompt = Form(prompt, "task.prompt")
        if not self._prompt.fields:
            raise bad_value("task.prompt", prompt, "a text with at least one {field} in it")
        self._options = [Form(option, "task.options") for option in options]
        self._answer = None if answer is None else Form(answer, "task.answer")
        if self._answer is not None and "answer" not in self._answer.fields:
            raise bad_value("task.answer", answer, "a text with {answer} in it")
        self._calibration = None if calibration is None else Form(calibration, "task.calibration")
        self._room = max_length - (0 if answer is None else max_new_tokens)

    def encode(self, example: Example, shown: Sequence[Example] = ()) -> Encoded:
        """A row of token ids per option; the answer are the positions of the option's tokens.

        Raises UserError with ``example.where`` if an option does not fit.
        """
        return self._encoded(self._prompt, example, shown)

    def encode_calibration(self, example: Example, shown: Sequence[Example] = ()) -> Encoded:
        """The same options behind the calibration text instead of the prompt.

        Raises UserError where the task has none.
        """
        if self._calibration is None:
            allowed = "a text to score options behind without the row; '' is one"
            raise bad_value("task.calibration", None, allowed)
        return self._encoded(self._calibration, example, shown)

    def _encoded(self, prompt: Form, example: Example, shown: Sequence[Example]) -> Encoded:
        before = "".join(self._demonstration(other) + BETWEEN for other in shown)
        asked = prompt.fill(example.fields, example.where)
        if self._answer is not None:
            row, answer = self._row(before, asked, self._written(example), example.where)
            start = self._tokens((before + asked.strip(" ")).lstrip())
            return Encoded(
                rows=(row,),
                answer=(answer,),
                label=0,
                prompt=self._cut(start),
                answers=example.answers,
            )
        options = self._choices(example)
        rows = [self._row(before, asked, option, example.where) for option in options]
        return Encoded(
            rows=tuple(row for row, _ in rows),
            answer=tuple(answer for _, answer in rows),
            label=example.label,
            golds=example.golds,
        )

    def _demonstration(self, example: Example) -> str:
        if self._answer is not None:
            right = self._written(example)
        else:
            right = self._choices(example)[example.label]
        return (self._prompt.fill(example.fields, example.where) + right).strip()

    def _choices(self, example: Example) -> list[str]:
        """The example's options. Raises UserError unless one of them is right."""
        if example.options:
            return list(example.options)
        if not 0 <= example.label < len(self._options):
            options = f"task.options has {len(self._options)} options"
            raise bad_data(example.where, f"no option for class {example.label}; {options}")
        return [option.fill(example.fields, example.where) for option in self._options]

    def _written(self, example: Example) -> str:
        """The first answer as it is written. Raises UserError if there is none."""
        assert self._answer is not None
        if not example.answers or not example.answers[0].strip():
            raise bad_data(example.where, "the row has no answer for task.answer")
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
        begins = next(inside, None)
        if begins is None:
            raise bad_data(where, f"the option {option!r} of task.options has no token of its own")
        # Some tokenizers say of a token of white space that it is nowhere; special ones come after.
        answer = [n for n in range(begins, len(ids)) if not special[n]]
        if answer[0] == 0:
            raise bad_data(where, "the prompt is empty, and the tokenizer adds no first token")
        excess = max(len(ids) - self._room, 0)
        # A model predicts tokens from those before them: the row's first token has no score.
        if answer[0] - excess < max(self._kept(ids), 1):
            raise bad_data(
                where,
                f"an option of task.options needs {len(ids) - answer[0] + max(self._kept(ids), 1)} "
                f"tokens, and task.max_length leaves {self._room}; raise it",
            )
        return self._cut(ids), tuple(position - excess for position in answer)

    def _cut(self, ids: list[int]) -> tuple[int, ...]:
        """``ids`` without those on the left that are too many, but with the BOS token."""
        excess, kept = max(len(ids) - self._room, 0), self._kept(ids)
        return (*ids[:kept], *ids[kept + excess :])

    def _kept(self, ids: list[int]) -> int:
        return int(bool(ids) and ids[0] == self._tokenizer.bos_token_id)

    def _tokens(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, verbose=False)["input_ids"]
        return ids


def _check_options(options: Sequence[str], answer: str | None) -> None:
    """Two or more different texts, or none: rows have their own, or an answer is written."""
    if answer is not None and options:
        raise bad_value("task.options", list(options), "none, as task.answer is given")
    if len(options) == 1 or len({option.strip(" ") for option in options}) < len(options):
        raise bad_value("task.options", list(options), "two or more different texts")
    if not all(option.strip(" ") for option in options):
        raise bad_value("task.options", list(options), "texts that are not blank")
