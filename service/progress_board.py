"""Where the workers of a training leave their progress for the command that shows it. Light: a process of its own."""

from typing import Any


class ProgressBoard:
    """Keeps what was posted until it is taken."""

    def __init__(self) -> None:
        """Begin empty."""
        self._posted: list[dict[str, Any]] = []

    def post(self, progress: dict[str, Any]) -> None:
        """Add the progress after a step."""
        self._posted.append(progress)

    def take(self) -> list[dict[str, Any]]:
        """Return what was posted since the last time, oldest first."""
        taken, self._posted = self._posted, []
        return taken
