"""The published networks of the field's metrics, written so that the published weight files load strictly."""
