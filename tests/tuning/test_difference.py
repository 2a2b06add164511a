"""What a run changed in all weights, as an adapter that plain peft loads."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from peft import PeftModel
from test_save import Tokenizer
from tiny_models import ALL, loaded, rows

from lozo_bench.engine.tensors import on_cpu
from lozo_bench.errors import UserError
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.difference import write_difference


def moved(arch, tie, rank):
    """Return a model, its former weights, and itself after a low-rank update of every matrix."""
    before = dataclasses.replace(loaded(arch, tie=tie), tokenizer=Tokenizer())
    X = dict(before.model.named_parameters())
    start = on_cpu(X)
    for name, x in X.items():
        with torch.no_grad():
            if x.ndim == 2:
                x += (
                    0.05 * _normal("U", name, len(x), rank) @ _normal("V", name, x.shape[1], rank).T
                )
            else:
                x += 0.05 * _normal("z", name, *x.shape)
    return before, start


def _normal(role, name, *shape):
    return Draws(0).normal(role, 0, {name: shape})[name].double()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # from peft
@pytest.mark.filterwarnings("ignore:.*tie:UserWarning", "ignore:fan_in_fan_out:UserWarning")
@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("arch", ALL)
def test_an_update_of_low_rank_is_exact_and_a_lower_rank_says_its_error(arch, tie, tmp_path):
    this, start = moved(arch, tie, rank=3)
    exact = write_difference(this, start, lambda _: 3, tmp_path / "exact")
    assert (exact.rank, exact.error < 1e-7) == (3, True)
    read = PeftModel.from_pretrained(loaded(arch, tie=tie).model, tmp_path / "exact").eval()
    ours = this.model(**rows()).logits
    torch.testing.assert_close(read(**rows()).logits, ours, rtol=1e-5, atol=1e-5)
    cut = write_difference(this, start, lambda _: 2, tmp_path / "cut")
    assert cut.rank == 2
    assert 0.05 < cut.error < 0.9
    read = PeftModel.from_pretrained(loaded(arch, tie=tie).model, tmp_path / "cut").eval()
    merged, new = read.merge_and_unload().state_dict(), this.model.state_dict()
    matrices = cut_names(tmp_path / "cut")
    missed = sum((merged[n] - new[n]).square().sum() for n in matrices)
    total = sum((new[n] - start[n]).square().sum() for n in matrices)
    assert float(missed / total) ** 0.5 == pytest.approx(cut.error, rel=1e-4)


def cut_names(folder):
    config = json.loads((folder / "adapter_config.json").read_text())
    return [f"{name}.weight" for name in config["target_modules"]]


def test_a_model_whose_linear_layers_are_what_they_were_has_no_adapter(tmp_path):
    this = loaded("opt")
    with pytest.raises(UserError, match="no linear layer changed"):
        write_difference(this, on_cpu(dict(this.model.named_parameters())), lambda _: 1, tmp_path)
