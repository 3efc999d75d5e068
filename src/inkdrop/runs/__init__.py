"""The run folder: its owner, its records, and resuming the run in it."""
