"""Turns the dial by load: sparser within a tick or two of a spike, denser slowly, within an operator's bounds.

Values in, values out: nothing here reads a clock, a file or a network. In order of reading: ``levels`` (what may
answer), ``observation`` (how the replicas fare, from their own readings), ``capacity`` (what each level holds),
``decision`` (what to do now), and the two halves of it, ``ascent`` and ``descent``.

The level is chosen as SuperServe's SlackFit chooses a subnetwork (Khare et al., NSDI 2025): the most accurate one that
answers what comes in time. It departs from it in that a level holds for all requests of a while and not for one batch,
so that answers do not change from one request to the next, and in that it goes back slowly.
"""
