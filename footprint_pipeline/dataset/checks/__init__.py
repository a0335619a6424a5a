"""What must hold of a prepared AOI before anything is trained on it."""
