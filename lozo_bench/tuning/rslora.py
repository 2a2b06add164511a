"""rsLoRA: LoRA whose product B A is multiplied by alpha / sqrt(r) instead of alpha / r.

Source: Kalajdzievski, "A rank stabilization scaling factor for fine-tuning with LoRA", arXiv
2312.03732. With alpha / r the update shrinks as r grows; with alpha / sqrt(r) it keeps its size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from lozo_bench.tuning.lora import Lora


class RsLora(Lora):
    """Train low-rank matrices beside frozen ones; see `Lora` for the options."""

    variant: ClassVar[Mapping[str, Any]] = {"use_rslora": True}
