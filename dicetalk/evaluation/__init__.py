"""Metrics of talking-head videos, the networks they need, and the protocols that fix both."""
