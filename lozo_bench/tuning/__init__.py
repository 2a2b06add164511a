"""Tunings: which parameters of a model move, one file a way.

Each takes a loaded model, adds what it needs, freezes the rest and names what moves, X. The model
keeps its class and is called as before, so that scoring and writing need not know which one it is.
Optimizers only ever see X.
"""
