"""Progress for the person at the terminal: always on stderr, so that stdout stays one JSON document."""

import sys


def say(text: str) -> None:
    """Print one line on stderr at once."""
    print(text, file=sys.stderr, flush=True)
