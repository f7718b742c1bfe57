"""The `dicetalk` command, one file for each group of commands."""
