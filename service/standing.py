"""What may be served as things are now: the floor, and what a build would give, held against what is committed."""

from collections.abc import Callable

from pruning.variants import VariantStore
from service.floor import BelowFloor, below_floor
from service.operations import Choice, RolloutState, same_cut


class Standing:
    """Judges variants for one run of the service; a variant of an earlier run may be out of date."""

    def __init__(self, store: VariantStore, ladder: tuple[str, ...], floor: Callable[[], float]) -> None:
        """Take the ``ladder`` for what is built now; ``floor`` gives the accuracy below which nothing is promoted."""
        self._store = store
        self._ladder = ladder
        self._floor = floor
        self._current = set(ladder)

    def first_state(self, variant_id: str) -> RolloutState:
        """Return the state of a service that begins with this variant.

        Raises:
            BelowFloor: its accuracy is below the floor.
            pruning.errors.StoreError: it is not in the store.
        """
        manifest = self._store.manifest(variant_id)
        accuracy, sparsity = manifest.evaluation.accuracy, manifest.spec.sparsity
        if accuracy < self._floor():
            remedy = "begin with a lower sparsity, or lower the floor" if sparsity > 0.0 else "lower the floor"
            raise BelowFloor(
                f"sparsity {sparsity:g} cannot be served: {below_floor(accuracy, self._floor())}; {remedy} "
                "(SPARSEDIAL_ACCURACY_FLOOR, or accuracy_floor in a Serve config)"
            )
        return RolloutState.first(manifest)

    def was_built(self, variant_id: str) -> None:
        """Take note that a build of this run gave this variant."""
        self._current.add(variant_id)

    def stands(self, committed: Choice) -> bool:
        """Tell whether a build of the committed variant's spec is known to give it, and the floor to let it through."""
        return committed.variant_id in self._current and committed.accuracy >= self._floor()

    def misgivings(self, committed: Choice) -> list[str]:
        """Return what an operator should know of the committed variant, in words; it is served all the same."""
        name = f"the committed variant {committed.variant_id} (sparsity {committed.spec.sparsity:g})"
        words = []
        if committed.accuracy < self._floor():
            words.append(
                f"{name} is served although {below_floor(committed.accuracy, self._floor())}: the floor was raised "
                "after the swap; dial down, or lower the floor"
            )
        ladder = [manifest for manifest in self._store.list() if manifest.variant_id in self._ladder]
        if committed.variant_id not in self._ladder and any(same_cut(one.spec, committed.spec) for one in ladder):
            words.append(
                f"{name} was made from other rows, or by another version, than its level is now; "
                "ask for this sparsity again to have it built and served anew"
            )
        return words
