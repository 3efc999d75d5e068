"""`describe`: what a configuration means and what training with it costs, before it is run."""
