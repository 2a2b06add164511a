"""Coordinates in subspaces, compared with values computed by hand."""

from __future__ import annotations

import torch

from lozo_bench.engine.subspace import Coordinates, Subspace, along, combination, stacked


def subspace(a, b, e):
    return Subspace({"w": torch.ones(5, a)}, {"w": torch.ones(4, b)}, {"b": torch.ones(3, e)})


def test_the_core_of_one_direction_is_a_multiple_of_the_identity():
    point = along(subspace(2, 2, 1), matrices=0.5, vectors=0.25)
    assert point.C.tolist() == [[0.5, 0.0], [0.0, 0.5]]
    assert point.s.tolist() == [0.25]


def test_the_core_of_directions_with_their_own_V_is_diagonal():
    point = combination(subspace(4, 4, 2), [0.5, -1.0])
    assert point.C.diagonal().tolist() == [0.5, 0.5, -1.0, -1.0]
    assert int((point.C != 0).sum()) == 4
    assert point.s.tolist() == [0.5, -1.0]


def test_the_core_of_directions_that_share_V_is_a_stack_of_diagonal_blocks():
    point = combination(subspace(4, 2, 2), [0.5, -1.0], vectors=[1.0, 2.0])
    assert point.C.tolist() == [[0.5, 0.0], [0.0, 0.5], [-1.0, 0.0], [0.0, -1.0]]
    assert point.s.tolist() == [1.0, 2.0]


def test_among_accepts_leading_dimensions():
    each = torch.eye(3, dtype=torch.float64)
    points = combination(subspace(3, 1, 3), torch.stack([each, -each]))
    assert points.C.shape == (2, 3, 3, 1)
    assert points.C[1, 2, :, 0].tolist() == [0.0, 0.0, -1.0]
    assert len(points.flat()) == 6


def test_without_vectors_there_are_no_coefficients():
    P = Subspace({"w": torch.ones(5, 2)}, {"w": torch.ones(4, 2)}, {})
    assert along(P, 1.0).s.shape == (0,)
    assert combination(P, [1.0, 2.0]).s.shape == (0,)


def test_coordinates_can_be_subtracted_and_indexed():
    P = subspace(2, 2, 1)
    points = stacked([along(P, 3.0), along(P, 1.0)])
    assert (points[0] - points[1]).C.diagonal().tolist() == [2.0, 2.0]
    assert len(points) == 2
    assert len(points[1:]) == 1
    assert isinstance(points[:1], Coordinates)
