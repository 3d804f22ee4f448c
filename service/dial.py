"""A replica's half of the dial: which variant answers, as the controller says, and which one a request chose."""

import random
from collections.abc import Callable
from types import MappingProxyType

from pruning.variants import Manifest
from service.cascading import Known, Rule, cascade_for
from service.engine import Engine, Live
from service.levels import Wish, chosen
from service.metrics import ReplicaMetrics
from service.policy import Policy
from service.protocol import Trial
from service.shelf import EngineShelf


class Dial:
    """Turns the shelf of engines. Implements ``EngineHolder``; every method runs on the event loop."""

    def __init__(
        self,
        shelf: EngineShelf,
        metrics: ReplicaMetrics,
        policy: Policy,
        cascades: Known = MappingProxyType({}),
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Show the live variant.

        Args:
            shelf: the engines.
            metrics: this replica's page.
            policy: holds until the controller's word is heard.
            cascades: calibrated ones by their level.
            draw: a number in [0, 1) for each request, by which trials take their share.
        """
        self._shelf = shelf
        self._metrics = metrics
        self._policy = policy
        self._cascade_off = False
        self._distrusted: frozenset[str] = frozenset()
        self._cascades = cascades
        self._draw = draw
        self._trial: Trial | None = None
        self._show_variant()

    @property
    def live(self) -> Live:
        """What answers now."""
        return self._shelf.live

    @property
    def policy(self) -> Policy:
        """What the service may do by itself."""
        return self._policy

    @property
    def on_trial(self) -> str | None:
        """The variant that answers a share of the requests before it is committed; None while there is none."""
        return None if self._trial is None else self._trial.variant_id

    @property
    def levels(self) -> list[Manifest]:
        """The loaded levels that a request may ask for."""
        return [engine.manifest for engine in self._shelf.resident if not self._is_distrusted(engine)]

    @property
    def dense(self) -> Engine | None:
        """The dense model, as it is resident; None while it is not loaded."""
        return next((engine for engine in self._shelf.resident if engine.manifest.spec.sparsity == 0.0), None)

    def level_of(self, manifest: Manifest) -> str:
        """Return the level of a variant as metrics name it: ``other`` for what is none of the ladder's."""
        known = {engine.manifest.variant_id for engine in self._shelf.resident}
        return f"{manifest.spec.sparsity:g}" if manifest.variant_id in known else "other"

    def engine_for(self, wish: Wish) -> Engine | None:
        """Return the level that a request runs on; None for whatever is live when its batch forms.

        A share of those that ask for none is answered by the variant on trial.

        Raises:
            Invalid: as ``chosen``.
        """
        if self._trial is not None and not wish and not wish.cascade and self._draw() < self._trial.fraction:
            return self._shelf.loaded.get(self._trial.variant_id)
        return chosen(wish, self._shelf.live, self._shelf.resident, self._policy, self._distrusted)

    def cascade_for(self, wish: Wish, engine: Engine | None) -> Rule | None:
        """Return how a cascade answers a request for which ``engine_for`` gave ``engine``; None where none does.

        A request that a trial took, or that named a level and no cascade, is answered by that level alone.

        Raises:
            Invalid: it asks for a cascade that there is not, or that is not loaded.
        """
        trusted = [engine for engine in self._shelf.resident if not self._is_distrusted(engine)]
        return cascade_for(wish, engine, trusted, self._policy, self._cascades, usual_off=self._usual_cascade_off())

    def snapshot(self, engine: Engine | None) -> Live:
        """Return what a batch runs on whose requests chose ``engine``."""
        return Live(self._shelf.live.generation, engine) if engine is not None else self._shelf.live

    @property
    def generation(self) -> int:
        """The generation that answers now."""
        return self._shelf.live.generation

    @property
    def variant_id(self) -> str:
        """The variant that answers now."""
        return self._shelf.live.engine.manifest.variant_id

    async def stage(self, variant_id: str) -> None:
        """Load, warm and probe a variant beside the live one; raises on any failure, the live one untouched."""
        with self._metrics.stage_variant.time():
            try:
                await self._shelf.stage(variant_id)
            except Exception:
                self._metrics.swaps.labels("failed").inc()
                raise

    def commit(self, generation: int, variant_id: str) -> None:
        """Let a loaded variant answer from the next batch on, under ``generation``; KeyError if it is not loaded."""
        self._shelf.commit(generation, variant_id)
        self._metrics.swaps.labels("committed").inc()
        self._show_variant()

    def drop_staged(self) -> None:
        """Forget the staged variant, if there is one."""
        if self._shelf.drop_staged():
            self._metrics.swaps.labels("dropped").inc()

    async def keep_resident(self, variant_ids: tuple[str, ...]) -> None:
        """Load these variants where they are not yet, and let go of others; ExceptionGroup of what failed."""
        await self._shelf.keep_resident(variant_ids)

    def heed(self, policy: Policy, *, cascade_off: bool = False, distrusted: frozenset[str] = frozenset()) -> None:
        """Choose levels and sample requests by this policy from now on.

        Its cascade is left out if that is off, and no request may choose what is distrusted.
        """
        self._policy, self._cascade_off, self._distrusted = policy, cascade_off, distrusted

    def _usual_cascade_off(self) -> bool:
        """Tell whether the policy's cascade may not answer: switched off itself, or its level turned back."""
        usual = self._policy.cascade
        levels = (engine.manifest for engine in self._shelf.resident)
        begins = {level.variant_id for level in levels if usual and level.spec.sparsity == usual.sparsity}
        return self._cascade_off or (bool(begins) and begins <= self._distrusted)

    def _is_distrusted(self, engine: Engine) -> bool:
        return engine.manifest.variant_id in self._distrusted

    def try_out(self, trial: Trial | None) -> None:
        """Let a loaded variant answer a share of the requests from now on; ``None`` ends that."""
        self._trial = trial

    def _show_variant(self) -> None:
        live = self._shelf.live
        self._metrics.set_variant(live.engine.manifest, live.generation, live.engine.name)
