"""Several processes on one run: each scores its share, all apply the same update.

What goes between them in a step is a loss for each candidate, a few bytes whatever the model's
size, because all of them draw the same directions from the same keys.
"""
