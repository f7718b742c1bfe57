"""Procedural talking heads: an endless, licence-free stand-in for recorded emotional speech video."""
