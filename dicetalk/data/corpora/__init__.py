"""Kinds of corpora: one file each, with what is particular to it, and the table of all of them."""
