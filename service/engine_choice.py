"""Which engine answers: the one that the settings name, or the faster of those that can.

``auto`` measures once for each precision, on the first variant of it that a replica loads: at the replica's start,
before it answers, unless a change brings another precision. Both engines run the same fixed sequences in turn, on one
core each, for a variant may be loaded beside the one that answers and must not take its cores; what counts is the
processor time of the measuring thread, which does not grow with the traffic beside it.
"""

import logging
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

from pruning.probes import probe
from pruning.slim.packed import TokenSequence
from pruning.spec import Precision
from pruning.variants import VariantStore
from service.engine import Engine, Reading
from service.engine_errors import EngineError
from service.settings import EngineName, Settings
from service.torch_engine import SharedBase, TorchEngine
from service.verification import verify

if TYPE_CHECKING:
    from service.openvino_engine import OpenVinoEngine

MARGIN = 1.1
"""How many times as fast as OpenVINO torch must be, by the geometric mean of its two readings, to be taken. Served,
torch loses more than the readings of one core show: it comes back to Python for each operation, OpenVINO once."""
ROUNDS = 5
SINGLE_LENGTH = 16
BATCH_LENGTHS = (6, 8, 10, 12, 14, 18, 22, 26, 32, 40)

logger = logging.getLogger(__name__)


def openvino_installed() -> bool:
    """Tell whether the extra ``openvino`` is installed."""
    return find_spec("openvino") is not None


def require_engine(name: EngineName) -> None:
    """Return if the engine is installed here.

    Raises:
        EngineError: it is not; names the extra.
    """
    if name is EngineName.OPENVINO and not openvino_installed():
        raise EngineError("engine openvino is not installed; run: pip install 'sparsedial[openvino]', or use torch")


class EngineLoader:
    """Loads variants of one base model, warmed up, as engines of the settings' choice."""

    def __init__(self, shared: SharedBase, store: VariantStore, settings: Settings, threads: int) -> None:
        """Load nothing yet; engines will compute on ``threads`` cores.

        Raises:
            EngineError: the engine that the settings name is not installed here.
        """
        require_engine(settings.engine)
        self._shared = shared
        self._store = store
        self._settings = settings
        self._threads = threads
        self._readings: dict[Precision, Mapping[str, Reading] | None] = {}
        self._may_choose = settings.engine is EngineName.AUTO and shared.device.type == "cpu" and openvino_installed()

    def __call__(self, variant_id: str) -> Engine:
        """Return a variant ready to answer.

        Raises:
            StoreError: no such variant, one of another model, or (ChecksumError) one that was altered.
            PrecisionError: one that this engine, device or processor does not compute.
            EngineError: OpenVINO does not compile it, and the settings ask for no other engine.
            AnswersChanged: it does not answer as it did when it was built.
            NonFiniteLogits: it answers with a NaN or an infinity.
        """
        engine = self._chosen(variant_id)
        verify(engine, self._shared.base.shape.vocabulary)
        return engine

    def _chosen(self, variant_id: str) -> Engine:
        if self._settings.engine is EngineName.OPENVINO:
            return self._openvino(variant_id, self._threads)
        if self._may_choose:
            return self._faster(variant_id)
        return self._torch(variant_id)

    def _faster(self, variant_id: str) -> Engine:
        """Return the engine that is faster in the variant's precision; where OpenVINO fails, torch with a warning."""
        precision = self._store.manifest(variant_id).spec.precision
        if precision.only_on is not None:  # OpenVINO computes what every device does
            return self._torch(variant_id)
        if precision not in self._readings:
            self._readings[precision] = self._measure(variant_id, precision)
        readings = self._readings[precision]
        if readings is not None and chosen(readings) == "openvino":
            try:
                return replace(self._openvino(variant_id, self._threads), readings=readings)
            except (EngineError, RuntimeError) as error:
                logger.warning("variant=%s engine=torch: %s", variant_id, error)
        return replace(self._torch(variant_id), readings=readings)

    def _measure(self, variant_id: str, precision: Precision) -> Mapping[str, Reading] | None:
        """Return both engines' readings, or None where OpenVINO fails."""
        try:
            engines: dict[str, Engine] = {"torch": self._torch(variant_id), "openvino": self._openvino(variant_id, 1)}
        except (EngineError, RuntimeError) as error:
            logger.warning("precision=%s engine=torch: no choice: %s", precision, error)
            return None
        readings = read_in_turn(engines, self._shared.base.shape.vocabulary)
        words = (
            f"{name} {one.single_ms:.2f} ms alone, {one.batch_ms:.2f} ms a batch" for name, one in readings.items()
        )
        logger.info("precision=%s engine=%s by one core's time: %s", precision, chosen(readings), "; ".join(words))
        return readings

    def _torch(self, variant_id: str) -> TorchEngine:
        engine = TorchEngine.load(
            self._shared, self._store, variant_id, max_batch_tokens=self._settings.max_batch_tokens
        )
        engine.warm_up()
        return engine

    def _openvino(self, variant_id: str, threads: int) -> "OpenVinoEngine":
        try:
            from service.openvino_engine import OpenVinoEngine
        except ImportError as error:  # installed, and yet it does not load
            raise EngineError(f"openvino cannot be imported: {error}; install it anew, or use engine torch") from error
        engine = OpenVinoEngine.load(
            self._shared.base,
            self._store,
            variant_id,
            threads=threads,
            max_batch_tokens=self._settings.max_batch_tokens,
        )
        engine.warm_up()
        return engine


def chosen(readings: Mapping[str, Reading]) -> str:
    """Return the engine to take: OpenVINO unless torch is faster by the margin, texts alone and in batches alike."""
    ours, theirs = readings["torch"], readings["openvino"]
    ratios = (theirs.single_ms / ours.single_ms, theirs.batch_ms / ours.batch_ms)
    return "torch" if math.sqrt(math.prod(ratios)) >= MARGIN else "openvino"


def read_in_turn(engines: Mapping[str, Engine], vocabulary: int) -> dict[str, Reading]:
    """Return what each engine takes, measured in turn, round by round, in the processor time of this thread.

    The thread computes alone: with ``compute_alone``, and engines of one thread.
    """
    single = [probe(SINGLE_LENGTH, vocabulary)]
    batch = [probe(length, vocabulary) for length in BATCH_LENGTHS]
    taken: dict[tuple[str, int], list[float]] = {(name, load): [] for name in engines for load in (0, 1)}
    for _ in range(ROUNDS + 1):
        for name, engine in engines.items():
            for load, sequences in enumerate((single, batch)):
                taken[name, load].append(_thread_ms(engine, sequences))
    medians = {key: statistics.median(values[1:]) for key, values in taken.items()}  # the first round warms up
    return {name: Reading(single_ms=medians[name, 0], batch_ms=medians[name, 1]) for name in engines}


def _thread_ms(engine: Engine, sequences: Sequence[TokenSequence]) -> float:
    started = time.thread_time()
    engine.predict(sequences)
    return 1000 * (time.thread_time() - started)
