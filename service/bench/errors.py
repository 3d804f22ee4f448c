"""What ends a measurement before it has figures."""

from pruning.errors import PruningError


class BenchError(PruningError):
    """The service under measurement did not start, or did not answer as it should."""
