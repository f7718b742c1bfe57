"""Model folders that people take away."""
