"""The ``sparsedial`` console script: sets what must stand in the environment before torch is imported, then runs."""

import os

WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "2000"}
"""Idle compute threads spin for some microseconds, as long as two operations of a model are apart, then sleep. Where
they spin for long, processes on the same cores wait for each other, and the slowest answers take many times longer."""


def main() -> None:
    """Run the command line."""
    for name, value in WAITING.items():
        os.environ.setdefault(name, value)
    from service.cli import main as run

    run()


if __name__ == "__main__":
    main()
