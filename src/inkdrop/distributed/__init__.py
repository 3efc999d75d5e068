"""Several processes that work on the same run."""
