"""The networks of DICE-Talk, under the state-dict names of the official release."""
