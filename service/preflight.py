"""What is looked at before anything starts, so that a damaged or foreign store is refused in words at once."""

from collections.abc import Iterable

from pruning.errors import StoreError
from pruning.workbench import Workbench
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
