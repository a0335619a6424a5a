"""What each subcommand of `footprint` does.

Each returns a dict for `--json`; the lines under `_lines` in it are for people.
"""
