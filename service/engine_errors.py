"""Errors of the choice and the making of engines."""

from pruning.errors import PruningError


class EngineError(PruningError):
    """An engine that is not installed, or that cannot compute what it is asked to."""
