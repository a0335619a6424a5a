"""The network: the only rooms that import keras."""
