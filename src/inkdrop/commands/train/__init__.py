"""`train`: from a configuration to a trained model, its samples and what was measured on them."""
