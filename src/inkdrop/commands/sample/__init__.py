"""`sample`: from a checkpoint to samples, and what is measured on them."""
