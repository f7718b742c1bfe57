"""From raw video to training batches."""
