"""Where imagery and labels come from."""
