"""Evaluation: run a model on a whole set of examples and compute metrics and loss."""
