"""Finding, loading and checking models; knows nothing of tasks and optimizers."""
