"""From labelled tiles to batches."""
