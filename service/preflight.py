"""What is looked at before anything starts, so that a damaged or foreign store is refused in words at once."""

from collections.abc import Iterable, Sequence

from pruning.errors import StoreError
from pruning.variants import VariantStore
from pruning.workbench import Workbench
from service.policy_desk import PolicyDesk
from service.standing import Standing
from service.state import StateFile


def check_store(bench: Workbench, ladder: Iterable[str], state_file: StateFile) -> None:
    """Return if the ladder and the committed variant are whole and belong to the model.

    Raises:
        StoreError: the state is damaged, or its variant is of another model.
        ChecksumError: a variant that would be served was altered or cut short.
    """
    state = state_file.read()
    committed = {state.committed.variant_id} if state else set()
    for variant_id in sorted(committed | set(ladder)):
        manifest = bench.store.verify(variant_id)
        if manifest.base_digest != bench.base.digest:
            raise StoreError(
                f"{bench.root} last served variant {variant_id} of another model than {bench.base.path}; "
                "give each model its own --store, or start with the model it belongs to"
            )


def check_floor(
    store: VariantStore, ladder: Sequence[str], initial: str, configured_floor: float | None, state_file: StateFile
) -> list[str]:
    """Return warnings about the variant that will be served; none where all is well.

    Args:
        store: holds ``ladder``.
        ladder: variants as they are built now, dense first.
        initial: the variant that is served where nothing was ever committed.
        configured_floor: the accuracy floor of the settings, if they have one; what was set while the service ran
            counts before it.
        state_file: says what was committed.

    Raises:
        BelowFloor: nothing was ever committed, and the initial variant is below the floor.
        StoreError: the state or a manifest cannot be read.
    """
    desk = PolicyDesk.of(store, ladder, configured_floor)
    standing = Standing(store, tuple(ladder), lambda: desk.policy.accuracy_floor)
    state = state_file.read()
    if state is None:
        standing.first_state(initial)
        return []
    return standing.misgivings(state.committed)
