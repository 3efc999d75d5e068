"""Claims of the README, as commands."""
