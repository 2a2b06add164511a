"""What a budget turns on: published counts, ties, parameters, and ranks in proportion to scores."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from gated_models import Run, stack

from lozo_bench.allocation.budget import Budget
from lozo_bench.allocation.schedule import Timing
from lozo_bench.errors import UserError


def modules(lora, shortcuts=0, rank=8, size=160):
    kinds = [False] * lora + [True] * shortcuts
    return [SimpleNamespace(rank=rank, size=size, is_shortcut=kind) for kind in kinds]


def ranks(of, scores, ties=None, share=0.25, parameters=None, mode="combined", allocate="gates"):
    budget = Budget(share, parameters, mode, allocate)
    ties = torch.zeros(len(of)) if ties is None else torch.tensor(ties)
    return budget.ranks(of, torch.tensor(scores, dtype=torch.float64), ties).tolist()


def test_the_published_counts_of_a_model_with_24_layers():
    both = modules(48, 95)
    scores = [float(i) for i in range(143)]  # the shortcuts are the best
    combined = ranks(both, scores)
    assert combined == [0] * 107 + [8] * 36
    separated = ranks(both, scores, mode="separated")
    assert separated == [0] * 36 + [8] * 12 + [0] * 71 + [8] * 24
    assert sum(map(bool, ranks(modules(48), scores[:48]))) == 12


def test_of_equal_scores_the_better_are_kept_and_the_rest_is_drawn():
    assert ranks(modules(4), [1, 2, 1, 1], [0.9, 0.8, 0.1, 0.5], share=0.5) == [0, 8, 8, 0]


def test_as_many_parameters_as_fit_are_on():
    of = [SimpleNamespace(rank=2, size=n, is_shortcut=False) for n in (30, 50, 20, 10)]
    found = ranks(of, [4, 3, 2, 1], share=None, parameters=65)
    assert found == [2, 0, 2, 2]  # 50 does not fit any more, 20 and 10 do


def test_ranks_are_in_proportion_to_scores_and_as_many_parameters_are_on_as_with_gates():
    # 0.5 of 4 modules of 160 parameters: 320 parameters, 16 components of 20.
    assert ranks(modules(4), [12, 12, 6, 2], share=0.5, allocate="rank") == [6, 6, 3, 1]
    # No module has more than its own rank; what is left goes to the others.
    assert ranks(modules(4), [90, 1, 1, 0], share=0.5, allocate="rank") == [8, 4, 4, 0]


def test_constant_scores_draw_a_set_anew_each_time_and_a_seed_draws_the_same():
    tuned = stack(layers=24)
    one, other, third = (
        sets(Run(tuned, proxy="constant", seed=seed), 300 if seed == 0 else 3) for seed in (0, 0, 1)
    )
    assert one == other
    assert one[:3] != third
    overlaps = [len(a & b) for a, b in pairwise(one)]
    assert sum(overlaps) / len(overlaps) == pytest.approx(3, abs=0.5)


def sets(run, count):
    """Return the sets of modules that so many allocations choose."""
    found = []
    for run.optimizer.number in range(count):
        ranks = run.optimizer._ranks(torch.ones(48))
        found.append({i for i, rank in enumerate(ranks.tolist()) if rank})
        assert len(found[-1]) == 12
    return found


def test_an_interval_restarts_with_each_epoch():
    timing = Timing("dynamic", 0.2)
    due = [step for step in range(2 * 459) if timing.is_due(step, 459)]
    assert due == [0, 92, 184, 276, 368, 459, 551, 643, 735, 827]
    assert Timing("dynamic", 0.07).interval(100) == 7
    assert [step for step in range(99) if Timing("static", 0.2).is_due(step, 10)] == [0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"budget": 0.0}, "budget: given 0.0; allowed: a number > 0 and <= 1"),
        ({"budget": 0.1}, "allocation.budget: given 0.1, which is none of 6 modules"),
        ({"budget_parameters": 9}, "budget_parameters: given 9; allowed: null"),
        ({"budget": None}, "budget_parameters: given None; allowed: a number of parameters"),
        (
            {"budget": None, "budget_parameters": 15},
            "allocation.budget_parameters: given 15; allowed: at least 16",
        ),
        ({"every": 0.0}, "every: given 0.0; allowed: a share of an epoch"),
        ({"score": "online", "proxy": "constant"}, "score: given 'online'; allowed: separate with"),
        ({"score": "online", "when": "static"}, "when: given 'static'; allowed: dynamic with"),
    ],
)
def test_an_allocation_that_cannot_be_made_is_refused_in_one_line(options, said):
    with pytest.raises(UserError) as refused:
        Run(**options)
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)
