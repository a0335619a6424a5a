"""The assets, thin: one module a stage."""
