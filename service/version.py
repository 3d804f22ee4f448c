"""The version of this program, from its package metadata."""

from importlib.metadata import version

VERSION = version("sparsedial")
