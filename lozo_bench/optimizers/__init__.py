"""Optimizers: one file a method, each with the outline of the paper's algorithm box.

Every optimizer is made from the weights that move, X, and a source of random directions, and goes
through one door, ``step(score) -> Report``. The loop never asks which kind it holds. ``lr`` is
public: the loop sets it before each step when there is a schedule.
"""
