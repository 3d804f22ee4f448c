"""Serve the cuts of a model and swap them live."""
