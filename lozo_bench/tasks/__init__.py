"""Tasks: the sources of rows, and the prompts that turn a row into tokens and scored positions."""
