"""DICE-Talk, open and trainable: emotional talking portraits from one image, speech and an emotion."""

__version__ = "0.1.0"
