"""LoRA modules and LoRA-adapted shortcuts between and inside the blocks, each with a gate.

Source: Zhang et al., "Unlocking the Global Synergies in Low-Rank Adapters", arXiv 2406.14956
(HeteroLoRA), with their code's four shortcuts of each block:

    s_res1    the block's input is added to the output of attention, again
    s_res2    the feed-forward branch's input is added to its output, again
    s_in      the block's input is added to the block's output
    s_cut     the feed-forward branch's input in the block before is added to that in this block

Each adds s B A x with s = shortcut_alpha / r. B is zero at the start. `shortcut_wiring.py` says
where exactly it is added.
"""

from __future__ import annotations

import warnings
from typing import Literal

from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel

from lozo_bench.errors import bad_value
from lozo_bench.models.load import Loaded
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.base import Tuned, freeze_rest, layer_stack
from lozo_bench.tuning.carriers import Carrier
from lozo_bench.tuning.gates import Gates
from lozo_bench.tuning.head import head_parameters
from lozo_bench.tuning.injected import inject
from lozo_bench.tuning.lora import Lora, initialise
from lozo_bench.tuning.low_rank_modules import low_rank_modules
from lozo_bench.tuning.residual_blocks import ResidualBlock, residual_blocks
from lozo_bench.tuning.shortcut_wiring import KINDS, S_CUT, wire


class Shortcuts:
    """Train low-rank matrices beside layers, and in shortcuts.

    Args:
        r: the rank of the modules beside layers.
        alpha: their product B A is multiplied by alpha / r.
        targets: a regular expression; the linear layers whose names match get a module.
        shortcut_r: the rank of the shortcuts; None: r.
        shortcut_alpha: their product B A is multiplied by shortcut_alpha / rank.
        shortcut_norm: ``pre``: shortcuts are added before a norm, and the model at the start is
            the plain one. ``repeat``: a norm is repeated for s_in and s_cut, as in the authors'
            code; only for post-norm models.
        train_head: also train everything behind the backbone.
    """

    gated = True

    def __init__(
        self,
        *,
        r: int,
        alpha: float,
        targets: str,
        shortcut_r: int | None = None,
        shortcut_alpha: float = 4.0,
        shortcut_norm: Literal["pre", "repeat"] = "pre",
        train_head: bool = False,
    ) -> None:
        self.lora = Lora(r=r, alpha=alpha, targets=targets, train_head=train_head)
        if shortcut_r is not None and shortcut_r < 1:
            raise bad_value("shortcut_r", shortcut_r, "a whole number >= 1, or null for r")
        if not 0 < shortcut_alpha < float("inf"):
            raise bad_value("shortcut_alpha", shortcut_alpha, "a number > 0")
        if shortcut_norm not in ("pre", "repeat"):
            raise bad_value("shortcut_norm", shortcut_norm, "one of pre, repeat")
        self.shortcut_r, self.shortcut_alpha = shortcut_r or r, shortcut_alpha
        self.shortcut_norm = shortcut_norm

    def tune(self, loaded: Loaded, draws: Draws) -> Tuned:
        """See `Tuning`."""
        model = loaded.model
        head = head_parameters(loaded, "tuning.train_head") if self.lora.train_head else set()
        blocks = self._blocks(model)
        config = self.lora.config(model)
        _add_carriers(model, blocks)
        self._add_shortcuts(config, model)
        with warnings.catch_warnings():  # peft says that it sets fan_in_fan_out where it has to
            warnings.filterwarnings("ignore", message="fan_in_fan_out")
            inject(model, config)
        for name, module in model.named_modules():
            if isinstance(module, LoraLayer):
                initialise(name, module, draws)
        wire(model, blocks, repeat=self.shortcut_norm == "repeat")
        X = freeze_rest(model, lambda name, x: ".lora_" in name or id(x) in head)
        gates = Gates(low_rank_modules(model), plain_when_off=self.shortcut_norm == "pre")
        return Tuned(
            X,
            model,
            all_weights=False,
            extras=gates.extras,
            gates=gates,
            layers_pass_one_state=False,
        )

    def _blocks(self, model: PreTrainedModel) -> list[ResidualBlock]:
        if chunk := getattr(model.config, "chunk_size_feed_forward", 0):
            raise bad_value(
                "chunk_size_feed_forward in config.json",
                chunk,
                "0 with tuning=shortcuts, which needs all positions of a row together",
            )
        option = "tuning=shortcuts"
        blocks = residual_blocks(model, layer_stack(model, option), option)
        if self.shortcut_norm == "repeat" and not blocks[0].post_norm:
            raise bad_value(
                "tuning.shortcut_norm",
                "repeat",
                f"pre with a {type(model).__name__}: its norms are at the start of the branches, "
                "and repeating them would normalise the residual stream itself",
            )
        return blocks

    def _add_shortcuts(self, config: LoraConfig, model: nn.Module) -> None:
        """Add the carriers to peft's config, with a rank and an alpha of their own."""
        carriers = [name for name, x in model.named_modules() if isinstance(x, Carrier)]
        config.target_modules = [*(config.target_modules or ()), *carriers]
        config.rank_pattern = dict.fromkeys(KINDS, self.shortcut_r)
        config.alpha_pattern = dict.fromkeys(KINDS, self.shortcut_alpha)


def _add_carriers(model: PreTrainedModel, blocks: list[ResidualBlock]) -> None:
    for number, block in enumerate(blocks):
        like = next(block.block.parameters())
        for kind in KINDS:
            if kind != S_CUT or number > 0:
                setattr(block.block, kind, Carrier(int(model.config.hidden_size), like))
