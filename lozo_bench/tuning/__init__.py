"""Tunings: which parameters of a model are trained. One file per method.

Each tuning takes a loaded model, adds parameters if it needs any, freezes all others and returns
the trainable ones, X. The model keeps its class and its signature, so scoring and generation do not
depend on the tuning. Optimizers only see X.
"""
