"""The networks of backbones in training and sampling."""
