"""Objectives: compute scores of options, and losses from them, from a model's logits."""
