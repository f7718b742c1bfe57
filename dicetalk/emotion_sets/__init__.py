"""Sets of emotions and their levels: one file each, and one of them chosen in `table.py`."""
