"""Allocations: which parts of what is trained are trained now. One file per method or proxy.

An allocation wraps an optimizer and is one itself, so the training loop does not know of it. Most
of them score low-rank modules with a proxy and turn on the best ones within a budget
(`allocate.py`).

Source: Zhang et al., "Unlocking the Global Synergies in Low-Rank Adapters", arXiv 2406.14956
(HeteroLoRA).
"""
