"""Ablations: what is left out, which runs that makes, how one is run, and the record of all."""
