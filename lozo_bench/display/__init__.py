"""Where the numbers of a run go: files, wandb and the terminal."""
