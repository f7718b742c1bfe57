"""The metrics: a file for each kind of them, and `table.py` with a row for each."""
