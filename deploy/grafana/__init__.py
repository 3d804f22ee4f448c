"""The dashboard and the code that makes it."""
