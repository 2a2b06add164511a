"""Objectives: scores of options, and losses, from a model's logits at the positions that matter."""
