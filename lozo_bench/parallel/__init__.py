"""Several processes share one run: each scores its share, and all apply the same update.

In each step they exchange one loss per candidate, a few bytes whatever the size of the model,
because all of them draw the same directions from the same keys.
"""
