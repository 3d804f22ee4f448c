"""What every scenario needs to know about its load."""

from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.capacity import CONCURRENCIES, Capacity, probe_capacity
from loadtests.client import LanePool
from loadtests.open_loop import Arrivals, Load
from loadtests.progress import say
from loadtests.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """Target, rate and shape of a load."""

    target: Target
    bodies: Sequence[bytes]
    rate: float | None = None
    """Requests per second; None measures the capacity first and takes ``share`` of it."""
    share: float = 0.5
    arrivals: Arrivals = Arrivals.POISSON
    seed: int = 0
    connections: int = 128
    timeout_s: float = 10.0
    probe_s: float = 3.0
    """Length of one reading of the capacity probe."""

    def pool(self, target: Target | None = None, *, read_labels: bool = False) -> LanePool:
        """Return a new pool to the target, or to another one."""
        return LanePool(target or self.target, size=self.connections, timeout_s=self.timeout_s, read_labels=read_labels)

    def load(self, rate: float, duration_s: float) -> Load:
        """Return the load of these options at ``rate``."""
        return Load(rate=rate, duration_s=duration_s, arrivals=self.arrivals, seed=self.seed)

    async def chosen_rate(self) -> tuple[float, dict[str, str]]:
        """Return the rate to send at, measured where it was not given, and the facts to report of it."""
        if self.rate is not None:
            return self.rate, {"rate": f"{self.rate:g} requests/s, given"}
        capacity, facts = await self.capacity()
        rate = capacity.rate * self.share
        return rate, {**facts, "rate": f"{rate:.1f} requests/s, {self.share:.0%} of capacity"}

    async def capacity(self, concurrencies: Sequence[int] = CONCURRENCIES) -> tuple[Capacity, dict[str, str]]:
        """Return what the service answers at most, and the facts to report of it."""
        say(f"measuring the capacity of {self.target.endpoint} ...")
        capacity = await probe_capacity(self.target, self.bodies, seconds=self.probe_s, concurrencies=concurrencies)
        say(f"capacity {capacity.rate:.0f} requests/s at {capacity.concurrency} clients")
        readings = ", ".join(f"{clients} clients: {value:.0f}" for clients, value in capacity.rates.items())
        return capacity, {"capacity": f"{capacity.rate:.1f} requests/s (closed loop; {readings})"}

    def facts(self) -> dict[str, str]:
        """Return the settings for the report."""
        words = sum(len(body.split()) for body in self.bodies) / len(self.bodies)
        return {
            "target": self.target.endpoint,
            "load": f"open loop, {self.arrivals} arrivals, seed {self.seed}, at most {self.connections} connections",
            "texts": f"{len(self.bodies)} single texts, {words:.0f} words on average",
        }
