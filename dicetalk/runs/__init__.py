"""Unfinished work of a stage: where it is kept, what it was made of, and when it may go on."""
