"""One training loop and one objective per trained part."""
