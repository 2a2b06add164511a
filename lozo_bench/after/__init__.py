"""What comes after a run: its model in files, and its answers to single rows."""
