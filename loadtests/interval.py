"""The interval of a share. The core has one of its own, which load tests do not import: they know HTTP alone."""

import math

Z_95 = 1.959964
"""Standard normal quantile of a two-sided 95 % interval."""


def wilson_interval(successes: int, total: int, z: float = Z_95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion (Wilson, 1927)."""
    if total == 0:
        return 0.0, 1.0
    share = successes / total
    centre, scale = share + z * z / (2 * total), 1 + z * z / total
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return (centre - spread) / scale, (centre + spread) / scale
