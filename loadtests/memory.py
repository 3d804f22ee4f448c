"""Resident memory of the service, as its own metrics page tells it."""

import re

import aiohttp

from loadtests.target import Target

_RESIDENT = re.compile(r"^process_resident_memory_bytes(?:\{[^}]*\})? (\S+)", re.MULTILINE)


async def resident_bytes(target: Target, timeout_s: float = 10.0) -> float:
    """Return the bytes of all replicas together; NaN where the page does not tell, or does not come in time."""
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(f"{target.url}/metrics") as response:
            found = _RESIDENT.findall(await response.text())
    except (aiohttp.ClientError, TimeoutError, OSError):
        return float("nan")
    return sum(map(float, found)) if found else float("nan")
