"""The folder of a run: whose it is, what is written down of it, and how it is resumed."""
