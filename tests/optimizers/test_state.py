"""What an optimizer has gathered is saved and restored, or refused."""

from __future__ import annotations

import collections
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lozo_bench.engine.in_place import InPlace
from lozo_bench.errors import UserError
from lozo_bench.optimizers.base import Needs
from lozo_bench.optimizers.state import load_optimizer_state, optimizer_state
from lozo_bench.randomness.draws import Draws


class Search:
    def __init__(self, told=()):
        self.told = told if isinstance(told, str) else torch.tensor(told)

    def state(self):
        return {"told": self.told}

    def load_state(self, state):
        self.told = state["told"]


def gathered():
    return SimpleNamespace(
        t=3,
        mean=0.37,
        flag=True,
        N={"w": torch.arange(3.0)},
        scalar=torch.tensor(7.0),
        nested={"p": {"w": torch.ones(2)}, "s": {"w": torch.zeros(2), "count": 4}, "empty": {}},
        history=[None, torch.tensor([1.0]), {"c": 0.5, "name": "x"}, []],
        pair=("adam", torch.ones(1)),
        tensor_from_none=torch.arange(2.0),
        number_from_none=11,
        text_from_none="best",
        none_from_tensor=None,
        search=Search([1.0, 2.0]),
    )


def fresh():
    return SimpleNamespace(
        t=0, mean=0, flag=0, N={}, scalar=torch.tensor(0.0), nested={}, history=[],
        pair=("", torch.zeros(1)), tensor_from_none=None, number_from_none=None,
        text_from_none=None, none_from_tensor=torch.ones(1), search=Search(),
    )  # fmt: skip


def test_everything_gathered_comes_back_as_it_was():
    state, again = optimizer_state(gathered()), fresh()
    load_optimizer_state(again, state)
    then = optimizer_state(again)
    assert {k: (x.dtype, x.tolist()) for k, x in then.items()} == {
        k: (x.dtype, x.tolist()) for k, x in state.items()
    }
    assert (again.t, again.mean, again.flag, again.number_from_none) == (3, 0.37, True, 11)
    assert (again.text_from_none, again.none_from_tensor) == ("best", None)
    assert again.scalar.shape == ()
    assert again.nested["s"]["count"] == 4
    assert again.nested["empty"] == {}
    assert again.history[0] is None
    assert again.history[2:] == [{"c": 0.5, "name": "x"}, []]
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
        weights=[w], engine=InPlace({"w": w}), draws=Draws(0), schedule=max, dtype=torch.float32,
        needs=Needs(),
    )  # fmt: skip
    assert list(optimizer_state(options)) == ["#structure"]
    load_optimizer_state(options, optimizer_state(options))
    assert options.weights[0] is w


@pytest.mark.parametrize(
    "value",
    [
        object(), {1, 2}, [object()], torch.Generator(), 2**70, collections.Counter(a=1),
        Search("no tensor"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused_by_name(value):
    with pytest.raises(UserError, match=r"^optimizer: its attribute thing.* cannot keep; allowed:"):
        optimizer_state(SimpleNamespace(thing=value))


@pytest.mark.parametrize("key", ["a/b", "[0]", 3])
def test_a_key_that_would_be_read_as_another_one_is_refused(key):
    with pytest.raises(UserError, match=r"^optimizer: its attribute thing has the key"):
        optimizer_state(SimpleNamespace(thing={key: 1.0}))


def test_left_over_and_missing_keys_are_refused():
    state = optimizer_state(SimpleNamespace(t=1, m=torch.ones(1)))
    with pytest.raises(UserError, match=r"fit SimpleNamespace: m is only in one of them"):
        load_optimizer_state(SimpleNamespace(t=0), state)
    with pytest.raises(UserError, match=r"fit SimpleNamespace: v is only in one of them"):
        load_optimizer_state(SimpleNamespace(t=0, m=torch.zeros(1), v=1), state)


def test_a_state_of_a_former_version_is_read():
    """It has no structure, and an attribute that is an option of `needs` now."""
    again = SimpleNamespace(t=0, N={}, name="paper", groups={"g": ["a"]}, scalar=torch.tensor(0.0))
    former = {
        "t": torch.tensor(5), "N/w": torch.ones(2), "dropout": torch.tensor(True),
        "scalar": torch.tensor(7.0),
    }  # fmt: skip
    load_optimizer_state(again, former)
    assert (again.t, float(again.scalar), again.groups) == (5, 7.0, {"g": ["a"]})
    assert again.N["w"].tolist() == [1.0, 1.0]
    with pytest.raises(UserError, match="other is only in one of them"):
        load_optimizer_state(again, {**former, "other": torch.ones(1)})
