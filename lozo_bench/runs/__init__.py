"""The files of a run: its result or failure, its lock, its journal and its checkpoints."""
