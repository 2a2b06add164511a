"""The engine: counter-based draws, and scoring nearby versions of a model on a batch."""
