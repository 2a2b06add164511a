"""Locate, load, check and save models. Nothing here depends on tasks or optimizers."""
