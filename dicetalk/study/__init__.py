"""A blinded user study: build its web page, and analyse what the raters send back."""
