"""DoRA: the norm of each output's weights is trained apart from their direction.

Source: Liu et al., "DoRA: Weight-decomposed low-rank adaptation", arXiv 2402.09353. With a trained
magnitude m of one number for each output, W in R^{m x n} becomes

    (1)  W' = m * (W + (alpha / r) B A) / |W + (alpha / r) B A|

where |.| is the norm of each row. It counts as a constant in the gradient (section 4.3). At the
start B = 0 and m = |W|, so that W' = W.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from lozo_bench.tuning.lora import Lora


class Dora(Lora):
    """Train low-rank matrices and magnitudes beside frozen matrices; see `Lora` for the options."""

    variant: ClassVar[Mapping[str, Any]] = {"use_dora": True}
