"""Which weights low-rank modules of queries and keys stand beside."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf
from tiny_models import ALL, loaded

from lozo_bench.config.paths import CONF
from lozo_bench.errors import UserError
from lozo_bench.optimizers.queries_keys import attention_layers
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.queries_keys import QueriesKeys

pytestmark = pytest.mark.timeout(60)

TARGETS = OmegaConf.load(CONF / "tuning" / "queries_keys.yaml").targets


@pytest.mark.parametrize("arch", ALL)
def test_every_layer_has_its_queries_and_keys(arch):
    tuned = QueriesKeys(targets=TARGETS).tune(loaded(arch), Draws(0))
    layers = attention_layers(tuned.X)
    assert len(layers) == tuned.model.config.num_hidden_layers
    used = {matrix.name for layer in layers for matrix in (layer.W_Q, layer.W_K)}
    assert used == set(tuned.X)
    assert tuned.beside


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(
        UserError, match=r"^tuning\.targets: 'nothing' is in no .*self_attn\.[kq]_proj"
    ):
        QueriesKeys(targets="nothing").tune(loaded(ALL[0]), Draws(0))
