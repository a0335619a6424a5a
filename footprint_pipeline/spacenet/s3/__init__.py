"""Objects of an S3-compatible store onto the disk: in parts, resumable, verified. What they mean is not known here."""
