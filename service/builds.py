"""One build, told as an event of the rollout, whatever becomes of it."""

import errno
import logging
from collections.abc import Callable

from pruning.errors import PruningError
from pruning.spec import PruneSpec
from service.events import Broken, Built
from service.operations import Cause
from service.protocol import Builder

logger = logging.getLogger(__name__)

_DISK_WORDS = {
    errno.ENOSPC: "the disk is full; free space and ask again",
    errno.EDQUOT: "the disk quota is used up; free space and ask again",
    errno.EROFS: "the store is read-only; make it writable and ask again",
    errno.EACCES: "the store may not be written; mend its permissions and ask again",
}


async def run_build(
    builder: Builder,
    operation_id: str,
    spec: PruneSpec,
    *,
    accuracy_floor: float,
    prepare_timeout_s: float,
    wall: Callable[[], float],
) -> Built | Broken:
    """Return how the build of ``spec`` went: the variant's essentials, or public words about what broke it."""
    try:
        manifest = await builder.build(spec)
    except PruningError as error:
        return Broken(operation_id=operation_id, error=str(error), cause=Cause.BUILD, now=wall())
    except OSError as error:
        logger.warning("operation=%s: the build failed: %s", operation_id, error)
        words = _DISK_WORDS.get(error.errno or 0, error.strerror or "the system refused; the log says what")
        return Broken(
            operation_id=operation_id, error=f"the variant was not built: {words}", cause=Cause.STORAGE, now=wall()
        )
    except Exception:
        logger.exception("operation=%s: the build failed", operation_id)
        words = "the build failed inside the service; its log says what"
        return Broken(operation_id=operation_id, error=words, cause=Cause.INTERNAL, now=wall())
    return Built(
        operation_id=operation_id,
        variant_id=manifest.variant_id,
        achieved_sparsity=manifest.achieved_sparsity,
        accuracy=manifest.evaluation.accuracy,
        accuracy_floor=accuracy_floor,
        now=wall(),
        deadline=wall() + prepare_timeout_s,
    )
