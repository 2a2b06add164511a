"""From the rows of a task to padded batches of tokens."""
