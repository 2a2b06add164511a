"""The configuration of a run: its schema, its checks, and what identifies it."""
