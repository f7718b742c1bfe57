"""Speed and memory against a plain implementation: one process, the same weights, equal results."""
