"""What a replica that serves nothing yet begins with: the controller's word, or while it is away its durable state."""

import asyncio
import logging
import time

from service.errors import NotReady
from service.protocol import ControlLink, Desired, ReplicaReport
from service.state import StateFile

logger = logging.getLogger(__name__)

ASK_AFRESH = -1
"""A known version that no controller has: the answer comes at once."""
PATIENCE_S = 10.0
"""How long the controller is asked before its durable state is looked at."""
FIRST_START_LIMIT_S = 3600.0
"""How long a controller that never committed anything is given: it scores the model and builds the ladder."""
RETRY_S = 0.5


async def born_on(
    link: ControlLink,
    state_file: StateFile,
    *,
    replica_id: str,
    metrics_address: str,
    patience_s: float = PATIENCE_S,
    limit_s: float = FIRST_START_LIMIT_S,
) -> tuple[int, str]:
    """Return (generation, variant id) of what is committed.

    Raises:
        NotReady: nothing was ever committed, and the controller gave no answer within ``limit_s``.
        StateFileError: the controller is away and its durable state cannot be used.
    """
    began = time.monotonic()
    while True:
        try:
            desired = await first_desired(
                link, replica_id=replica_id, metrics_address=metrics_address, timeout_s=patience_s
            )
            return desired.generation, desired.variant_id
        except NotReady:
            waited_s = time.monotonic() - began
        state = await asyncio.to_thread(state_file.read)
        if state is not None:
            logger.warning("replica=%s: the controller is away; starting from its durable state", replica_id)
            return state.generation, state.committed.variant_id
        if waited_s >= limit_s:
            raise NotReady(f"Nothing was ever committed, and the controller gave no answer within {limit_s:g} s.")
        logger.info(
            "replica=%s: nothing was ever committed; the controller may be preparing the ladder (waited %.0f s of %g)",
            replica_id,
            waited_s,
            limit_s,
        )


async def first_desired(
    link: ControlLink, *, replica_id: str, metrics_address: str, timeout_s: float, retry_s: float = RETRY_S
) -> Desired:
    """Return what a replica that serves nothing yet shall begin with. It gets no lease by asking.

    Raises:
        NotReady: the controller gave no answer within ``timeout_s``.
    """
    newborn = ReplicaReport(
        replica_id=replica_id,
        generation=0,
        variant_id="",
        prepared_operation=None,
        failed_operation=None,
        failure=None,
        metrics_address=metrics_address,
        inflight=0,
    )
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    return await link.sync(newborn, ASK_AFRESH)
                except Exception as error:
                    logger.info("replica=%s: the controller does not answer yet: %s", replica_id, error)
                await asyncio.sleep(retry_s)
    except TimeoutError:
        raise NotReady(f"The controller gave no answer within {timeout_s:g} s.") from None


async def check_still_committed(state_file: StateFile, generation: int) -> None:
    """Return if no newer generation was committed before the controller went away.

    Raises:
        NotReady: one was; begin again.
        StateFileError: the durable state cannot be used.
    """
    state = await asyncio.to_thread(state_file.read)
    if state is not None and state.generation > generation:
        raise NotReady(f"Generation {state.generation} was committed while this replica loaded {generation}.")
