"""The admin API as a load test uses it: the dial, the frontier, and the wait for an operation to end."""

import asyncio
import re
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp

from loadtests.errors import AdminError
from loadtests.target import Target

COMMITTED = "committed"
ENDED = frozenset({COMMITTED, "failed", "rolled_back"})
POLL_S = 0.1
SPEC = ("sparsity", "pattern", "scorer", "recover", "precision")
"""Members that a ``PUT`` takes and the state of the dial shows."""
SERVICE_FACTS = ("model_id", "model_dtype", "version")
"""Members of ``GET /info`` that a report tells."""
OWN_FACTS = ("replicas", "device", "threads")
"""Further ones, of its member ``sparsedial``."""

_LEVEL_ACCURACY = re.compile(r'^sparsedial_level_accuracy_ratio\{[^}]*sparsity="([^"]+)"[^}]*\} (\S+)', re.MULTILINE)
_FLOOR = re.compile(r"^sparsedial_accuracy_floor_ratio(?:\{[^}]*\})? (\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A change of sparsity, as the service told it last."""

    id: str
    phase: str
    generation: int | None
    """The generation that it committed; None where it did not."""
    detail: str
    """Why it failed; empty otherwise."""

    @property
    def committed(self) -> bool:
        """True once every live replica answers by the new variant."""
        return self.phase == COMMITTED


class AdminClient:
    """A connection to ``/admin`` with its own token, apart from the load's connections."""

    def __init__(self, url: str, token: str | None, *, wait_s: int = 30, timeout_s: float = 120.0) -> None:
        """Prepare a session; ``wait_s`` goes with every ``PUT``, ``timeout_s`` bounds a whole change."""
        self._wait_s = wait_s
        self._timeout_s = timeout_s
        self._session = aiohttp.ClientSession(
            base_url=url,
            headers={"authorization": f"Bearer {token}"} if token else {},
            timeout=aiohttp.ClientTimeout(total=wait_s + 15),
        )

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the session."""
        await self._session.close()

    async def spec(self) -> dict[str, Any]:
        """Return what is committed now, in the members that a ``PUT`` takes."""
        state = await self._call("GET", "/admin/sparsity")
        return {member: state[member] for member in SPEC if member in state}

    async def policy(self) -> dict[str, Any]:
        """Return what the service may do by itself, as ``GET /admin/policy`` has it."""
        return await self._call("GET", "/admin/policy")

    async def set_policy(self, **members: Any) -> None:
        """Change these members of the policy; the others stay."""
        await self._call("PUT", "/admin/policy", members)

    async def ladder(self) -> list[float]:
        """Return the ladder's sparsities, ascending, less those under the accuracy floor, as ``GET /metrics`` has them.

        Raises:
            AdminError: the page shows no ladder.
        """
        try:
            async with self._session.get("/metrics") as response:
                page = await response.text()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise AdminError(f"GET /metrics: {type(error).__name__} {error}") from error
        accuracy = {float(level): float(value) for level, value in _LEVEL_ACCURACY.findall(page)}
        floor = max(map(float, _FLOOR.findall(page)), default=0.0)
        if not accuracy:
            raise AdminError("GET /metrics shows no sparsedial_level_accuracy_ratio; is the control page reachable?")
        return sorted(level for level, value in accuracy.items() if value >= floor)

    async def known_levels(self) -> set[float]:
        """Return every sparsity of which a variant is stored, on the ladder or not."""
        frontier = await self._call("GET", "/admin/frontier")
        try:
            return {float(level["requested_sparsity"]) for level in frontier["levels"]}
        except (KeyError, TypeError, ValueError) as error:
            raise AdminError(f"/admin/frontier has no levels with requested_sparsity: {frontier}") from error

    async def dial(self, sparsity: float, **others: str) -> Operation:
        """Ask for ``sparsity``, with other members of the body if need be; return the operation once it has ended.

        Raises:
            AdminError: the request was refused, or the operation did not end in time.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._call(
                    "PUT", f"/admin/sparsity?wait={self._wait_s}", {"sparsity": sparsity, **others}
                )
                while (operation := _operation(answer)).phase not in ENDED:
                    await asyncio.sleep(POLL_S)
                    answer = await self._call("GET", f"/admin/operations/{operation.id}")
        except TimeoutError as error:
            raise AdminError(f"sparsity {sparsity} was not settled within {self._timeout_s:g} s") from error
        return operation

    async def _call(self, method: str, path: str, body: object | None = None) -> dict[str, Any]:
        try:
            async with self._session.request(method, path, json=body) as response:
                answer = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise AdminError(f"{method} {path}: {type(error).__name__} {error}") from error
        # A change that ended without a commit is a 422 whose body is the operation.
        if not isinstance(answer, dict) or (response.status >= 400 and "phase" not in answer):
            raise AdminError(f"{method} {path} answered {response.status}: {answer}")
        return answer


def _operation(answer: dict[str, Any]) -> Operation:
    try:
        generation = answer["generation"]
        return Operation(
            id=str(answer["id"]),
            phase=str(answer["phase"]),
            generation=None if generation is None else int(generation),
            detail=str(answer.get("error") or ""),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise AdminError(f"an operation has id, phase and generation; got {answer}") from error


async def service_facts(target: Target) -> dict[str, str]:
    """Return what ``GET /info`` of the target says, as one line for a report; empty where it has no such page."""
    timeout = aiohttp.ClientTimeout(total=10)
    try:
        async with (
            aiohttp.ClientSession(headers=target.headers, timeout=timeout) as session,
            session.get(f"{target.url}/info") as response,
        ):
            info = await response.json(content_type=None) if response.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return {}
    if not isinstance(info, dict):
        return {}
    own = info.get("sparsedial", {})
    facts = [
        *(f"{key} {info[key]}" for key in SERVICE_FACTS if key in info),
        *(f"{key} {own[key]}" for key in OWN_FACTS if key in own),
        *(f"{name} {version}" for name, version in own.get("versions", {}).items()),
    ]
    return {"service": ", ".join(facts)}
