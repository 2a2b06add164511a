"""What an optimizer has gathered is saved and restored, or refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lozo_bench.engine.in_place import InPlace
from lozo_bench.errors import UserError
from lozo_bench.optimizers.state import load_optimizer_state, optimizer_state
from lozo_bench.randomness.draws import Draws


class Search:
    def __init__(self, told=()):
        self.told = torch.tensor(told)

    def state(self):
        return {"told": self.told}

    def load_state(self, state):
        self.told = state["told"]


def gathered():
    return SimpleNamespace(
        t=3,
        scale=2.5,
        flag=True,
        N={"w": torch.arange(3.0)},
        scalar=torch.tensor(7.0),
        nested={"p": {"w": torch.ones(2)}, "s": {"w": torch.zeros(2), "count": 4}},
        history=[torch.tensor([1.0]), {"c": 0.5}],
        pair=(1, torch.ones(1)),
        began_as_none=torch.arange(2.0),
        number_from_none=11,
        search=Search([1.0, 2.0]),
    )


def fresh():
    return SimpleNamespace(
        t=0, scale=1.0, flag=False, N={}, scalar=torch.tensor(0.0), nested={}, history=[],
        pair=(0, torch.zeros(1)), began_as_none=None, number_from_none=None, search=Search(),
    )  # fmt: skip


def test_everything_gathered_comes_back_as_it_was():
    state, again = optimizer_state(gathered()), fresh()
    load_optimizer_state(again, state)
    then = optimizer_state(again)
    assert {k: (x.dtype, x.tolist()) for k, x in then.items()} == {
        k: (x.dtype, x.tolist()) for k, x in state.items()
    }
    assert (again.t, again.scale, again.flag, again.number_from_none) == (3, 2.5, True, 11)
    assert again.scalar.shape == ()
    assert again.nested["s"]["count"] == 4
    assert isinstance(again.history, list)
    assert again.history[1] == {"c": 0.5}
    assert isinstance(again.pair, tuple)
    assert again.search.told.tolist() == [1.0, 2.0]


def test_a_collection_that_was_empty_is_emptied():
    again = gathered()
    emptied = SimpleNamespace(**{**vars(gathered()), "N": {}, "history": []})
    load_optimizer_state(again, optimizer_state(emptied))
    assert (again.N, again.history) == ({}, [])


def test_options_weights_engine_and_draws_are_not_saved():
    w = nn.Parameter(torch.ones(2))
    options = SimpleNamespace(
        name="paper", none=None, names={"g": ["a", "b"]}, weights=[w], engine=InPlace({"w": w}),
        draws=Draws(0), schedule=max,
    )  # fmt: skip
    assert optimizer_state(options) == {}
    load_optimizer_state(options, {})
    assert options.name == "paper"
    assert options.names == {"g": ["a", "b"]}


@pytest.mark.parametrize("value", [object(), {1, 2}, [object()], torch.Generator()])
def test_what_cannot_be_kept_is_refused_by_name(value):
    with pytest.raises(UserError, match=r"^optimizer: its attribute thing.* cannot keep; allowed:"):
        optimizer_state(SimpleNamespace(thing=value))


@pytest.mark.parametrize("key", ["a/b", "[0]", "()", 3])
def test_a_key_that_would_be_read_as_another_one_is_refused(key):
    with pytest.raises(UserError, match=r"^optimizer: its attribute thing has the key"):
        optimizer_state(SimpleNamespace(thing={key: 1.0}))


def test_left_over_and_missing_keys_are_refused():
    state = optimizer_state(SimpleNamespace(t=1, m=torch.ones(1)))
    with pytest.raises(UserError, match=r"has m, which SimpleNamespace does not have"):
        load_optimizer_state(SimpleNamespace(t=0), state)
    with pytest.raises(UserError, match=r"does not fit SimpleNamespace\.v"):
        load_optimizer_state(SimpleNamespace(t=0, m=torch.zeros(1), v=torch.zeros(1)), state)


def test_a_checkpoint_with_tensors_without_dimensions_in_the_former_format_is_read():
    """Before, they were saved under the plain name."""
    again = SimpleNamespace(scalar=torch.tensor(0.0))
    load_optimizer_state(again, {"scalar": torch.tensor(7.0)})
    assert float(again.scalar) == 7.0
