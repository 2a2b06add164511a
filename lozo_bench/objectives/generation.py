"""Generate answers greedily until a newline, and use a metric of them as the training loss.

Source: MeZO's code. Generation: greedy, one beam; it stops at the newline token or at the
end-of-text token. Objective ``--non_diff`` (large_models/trainer.py:739): minus the F1 of the
generated answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from lozo_bench.engine.device_errors import raise_if_of_the_device
from lozo_bench.engine.protocol import MicroBatch
from lozo_bench.errors import UserError
from lozo_bench.models.capabilities import without_cache
from lozo_bench.models.probes import WRONG_SHAPE, equal_up_to_rounding, some_words
from lozo_bench.objectives.losses import PreparedMicroBatch
from lozo_bench.tasks.base import Encoded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# A metric of a generated answer, given the right answers; from 0 to 1.
TextMetric = Callable[[str, Sequence[str]], float]


class Generator:
    """Continues prompts with the likeliest token at each step, until a newline or the end token.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        max_new_tokens: the largest number of tokens in an answer.
        device: the device of the prompts.
        dtype: the least exact dtype that the model computes in.

    Raises:
        UserError: transformers cannot generate with this model as it reads rows.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        max_new_tokens: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.model, self.tokenizer, self.device = model, tokenizer, device
        self.max_new_tokens = max_new_tokens
        self.stops = _stop_tokens(tokenizer)
        self.how = GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_new_tokens,
            eos_token_id=self.stops or None,
            pad_token_id=tokenizer.pad_token_id,
        )
        self.pad = tokenizer.pad_token_id
        self.may_pad = self._may_pad(dtype)

    @torch.no_grad()
    def __call__(self, prompts: Sequence[Sequence[int]]) -> list[str]:
        """Return the answer to each prompt, without leading and trailing white space."""
        if self.may_pad:
            return self._together(prompts)
        texts = [""] * len(prompts)
        for length in set(map(len, prompts)):
            group = [n for n, prompt in enumerate(prompts) if len(prompt) == length]
            for n, text in zip(group, self._together([prompts[n] for n in group]), strict=True):
                texts[n] = text
        return texts

    def _together(self, prompts: Sequence[Sequence[int]]) -> list[str]:
        width = max(map(len, prompts))
        # Prompts are padded on the left, so that all of them end at the same position.
        ids = [[self.pad] * (width - len(p)) + list(p) for p in prompts]
        mask = [[0] * (width - len(p)) + [1] * len(p) for p in prompts]
        with _generation_config(self.model, self.how):
            written = self.model.generate(
                input_ids=torch.tensor(ids, device=self.device),
                attention_mask=torch.tensor(mask, device=self.device),
            )
        answers = map(self._until_stop, written[:, width:].tolist())
        texts = self.tokenizer.batch_decode(list(answers), skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _until_stop(self, tokens: list[int]) -> list[int]:
        """Return the tokens before the first stop token; padding follows, which can be any word."""
        stop = next((n for n, token in enumerate(tokens) if token in self.stops), len(tokens))
        return tokens[:stop]

    @torch.no_grad()
    def _may_pad(self, dtype: torch.dtype) -> bool:
        """Return whether padding in front of a prompt leaves what the model writes unchanged.

        It does not in models that take no explicit positions, or no mask.
        """
        row = some_words(self.model, 3)[None].to(self.device)
        padding, ones = torch.full_like(row, self.pad), torch.ones_like(row)
        read = self.model(input_ids=row, attention_mask=ones, **without_cache(self.model))
        try:
            alone = self._first_logits(row, ones)
            padded = self._first_logits(
                torch.cat([padding, row], 1), torch.cat([0 * ones, ones], 1)
            )
        except WRONG_SHAPE as error:
            raise_if_of_the_device(error)
            raise self._unable(str(error).splitlines()[0]) from error
        if not equal_up_to_rounding(read.logits[:, -1].to(alone), alone, dtype):
            raise self._unable("it gives the model other positions than a plain pass does")
        return equal_up_to_rounding(alone, padded, dtype)

    def _first_logits(self, rows: Tensor, mask: Tensor) -> Tensor:
        one = GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=False, num_beams=1, max_new_tokens=1, pad_token_id=self.pad
        )
        with _generation_config(self.model, one):
            output = self.model.generate(
                input_ids=rows,
                attention_mask=mask,
                output_logits=True,
                return_dict_in_generate=True,
            )
        logits: Tensor = output.logits[0]
        return logits

    def _unable(self, why: str) -> UserError:
        return UserError(
            f"task.answer: transformers cannot generate with a {type(self.model).__name__} "
            f"({why}); what to do: choose another model, or a task with options"
        )


def _stop_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens of a newline and of the end of a text, as far as there are such tokens."""
    last = tokenizer.encode("\n", add_special_tokens=False)[-1:]
    new_line = [token for token in last if "\n" in tokenizer.decode([token])]
    end = tokenizer.eos_token_id
    return new_line if end is None else [*new_line, end]


@contextmanager
def _generation_config(model: Any, how: GenerationConfig) -> Iterator[None]:
    """Inside this context the model generates with this config and ignores its own one.

    A checkpoint's generation_config.json may, for example, penalise repetition or set a minimum
    number of tokens; ``generate`` would use it for all settings that are not given.
    """
    own, model.generation_config = model.generation_config, how
    try:
        yield
    finally:
        model.generation_config = own


class GenerationObjective:
    """An objective whose loss is minus a metric of the generated answers, as MeZO trains on F1.

    Args:
        writer: generates the answers.
        worth: the metric, from 0 to 1, of an answer and the right answers.
    """

    def __init__(self, generator: Generator, metric: TextMetric) -> None:
        self.generator, self.metric = generator, metric

    def prepare(
        self, examples: Sequence[Encoded], weights: Sequence[float] | None
    ) -> PreparedMicroBatch:
        """See `Objective`. ``weights`` are ignored: every example counts the same."""
        prompts = [example.prompt for example in examples]

        def losses(copies: int) -> Tensor:
            texts = self.generator(prompts * copies)
            minus_metrics = [
                -self.metric(text, examples[i % len(examples)].answers)
                for i, text in enumerate(texts)
            ]
            return torch.tensor(minus_metrics, dtype=torch.float64).view(copies, len(examples))

        longest = max(map(len, prompts)) + self.generator.max_new_tokens
        part = MicroBatch(len(examples), longest * len(prompts), losses)
        return PreparedMicroBatch(part, self.tokens(examples))

    def tokens(self, examples: Sequence[Encoded]) -> int:
        """See `Objective`. Counts the prompts' tokens and the most that can be generated."""
        return sum(len(example.prompt) + self.generator.max_new_tokens for example in examples)
