"""How good a model is, and which of two is better."""
