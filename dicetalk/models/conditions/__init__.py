"""What steers a video: a file for each condition, and `table.py` with all of them."""
