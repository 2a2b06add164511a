"""Tasks: where rows come from, how a row becomes tokens, and which positions matter."""
