"""How often Python looks for garbage among the requests in flight.

It does so whenever 700 more objects were made than freed, and among all that it ever saw whenever a quarter of them is
new. Ray takes what a replica began with out of its sight, so that "all" is the requests in flight: it looks through
hundreds of them again and again. An overloaded replica spent most of its event loop's time so, and refused half of what
it could have answered (``python -m loadtests overload``). Hardly anything here forms cycles; what does goes a little
later.
"""

import gc

THRESHOLDS = (100_000, 20, 100)
"""Objects made and not freed before the youngest are looked at; rounds of that before the next older ones are."""


def collect_seldom() -> None:
    """Let this process look for garbage seldom."""
    gc.set_threshold(*THRESHOLDS)
