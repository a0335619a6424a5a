"""The stages of the pipeline, composed from the rooms: what an asset or a command calls."""
