"""Answers that are written and not chosen: greedy, until a new line, and what they are worth.

Source: MeZO's large-model code (utils.py, trainer.py), spec lozo_mezo sections 2.5 and 3.5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from lozo_bench.engine.score import Part
from lozo_bench.objectives.losses import Laid
from lozo_bench.tasks.base import Encoded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Worth = Callable[[str, Sequence[str]], float]


class Writer:
    """Writes on from prompts, token by token the likeliest, to a new line or the end token.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        max_new_tokens: an answer is at most so long.
        device: where prompts go.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        max_new_tokens: int,
        device: torch.device,
    ) -> None:
        self.model, self.tokenizer, self.device = model, tokenizer, device
        self.max_new_tokens = max_new_tokens
        new_line = tokenizer.encode("\n", add_special_tokens=False)[-1]
        end = tokenizer.eos_token_id
        self.how = GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_new_tokens,
            eos_token_id=[new_line] if end is None else [new_line, end],
            pad_token_id=tokenizer.pad_token_id,
        )
        self.pad = tokenizer.pad_token_id

    @torch.no_grad()
    def __call__(self, prompts: Sequence[Sequence[int]]) -> list[str]:
        """The answer to each prompt, without the white space around it."""
        width = max(map(len, prompts))
        # Padded on the left, so that all go on from the same place.
        ids = [[self.pad] * (width - len(p)) + list(p) for p in prompts]
        mask = [[0] * (width - len(p)) + [1] * len(p) for p in prompts]
        with _as_told(self.model, self.how):
            written = self.model.generate(
                input_ids=torch.tensor(ids, device=self.device),
                attention_mask=torch.tensor(mask, device=self.device),
            )
        texts = self.tokenizer.batch_decode(written[:, width:], skip_special_tokens=True)
        return [text.strip() for text in texts]


@contextmanager
def _as_told(model: Any, how: GenerationConfig) -> Iterator[None]:
    """While this is open the model generates so, and nothing of it is filled in from its own file.

    A checkpoint's generation_config.json may punish repetition or ask for so many tokens at least.
    """
    own, model.generation_config = model.generation_config, how
    try:
        yield
    finally:
        model.generation_config = own


class WrittenObjective:
    """Minus what written answers are worth, as MeZO trains on F1.

    Args:
        writer: writes the answers.
        worth: of an answer, given the right ones: 0 to 1.
    """

    def __init__(self, writer: Writer, worth: Worth) -> None:
        self.writer, self.worth = writer, worth

    def part(self, examples: Sequence[Encoded], weights: Sequence[float] | None) -> Laid:
        """See `Objective`; every example counts alike."""
        prompts = [example.prompt for example in examples]

        def losses(copies: int) -> Tensor:
            texts = self.writer(prompts * copies)
            worth = [
                -self.worth(text, examples[i % len(examples)].answers)
                for i, text in enumerate(texts)
            ]
            return torch.tensor(worth, dtype=torch.float64).view(copies, len(examples))

        longest = max(map(len, prompts)) + self.writer.max_new_tokens
        part = Part(len(examples), longest * len(prompts), losses)
        return Laid(part, self.tokens(examples))

    def tokens(self, examples: Sequence[Encoded]) -> int:
        """See `Objective`: those of the prompts, and the most that can be written."""
        return sum(len(example.prompt) + self.writer.max_new_tokens for example in examples)
