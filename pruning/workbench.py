"""Everything a build needs, opened once: base model, rows, calibration, store."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pruning.cache import CalibrationCache
from pruning.calibration import Calibration, CalibrationKey
from pruning.capture import BATCH_ROWS, Progress, capture
from pruning.curve_cache import CurveCache
from pruning.curves import cost_curves
from pruning.data import LabelledSet, calibration_sample, rows_apart
from pruning.encoder import BaseModel
from pruning.errors import CacheError, StoreError
from pruning.files import digest_of, new_folder, sha256_of, write_json
from pruning.input_grams import INPUT_GRAMS_VERSION, input_grams
from pruning.latencies import Latencies, LatencyFile, measure_latencies
from pruning.masks.structures import CostCurve, Curve, Kind
from pruning.material import Material
from pruning.prediction import Breath, no_breath, predict_logits
from pruning.recovered import RecoveredCuts
from pruning.score_cache import ScoreCache, ScoreKey
from pruning.scores import Scorer, Streamed, StructureScores, unit_scores
from pruning.slim.bert import SlimBert
from pruning.slim.convert import build_slim, dense_mask, slim_layers
from pruning.spec import Structures
from pruning.tasks import TASKS
from pruning.unit_curves import attention_curves
from pruning.unit_pass import UNIT_PASS_VERSION, UnitStatistics, unit_pass
from pruning.variants import VariantStore
from pruning.weight_pass import weight_pass

CALIBRATION_ROWS = 2048
MICRO_BATCH = 4
SEED = 0
APART_ROWS, FEWEST_APART = 1024, 512
"""Rows that are kept apart for thresholds, at most and at least."""
LOGITS, CHECKSUM = "logits.safetensors", "sha256.json"

logger = logging.getLogger(__name__)


@dataclass
class Workbench:
    """A base model, the rows that score and judge its cuts, and the folder that keeps them."""

    base: BaseModel
    train: LabelledSet
    """Calibration rows, in the order they are read."""
    evaluation: LabelledSet
    root: Path
    seed: int = SEED
    """By which the calibration rows were drawn."""
    apart: LabelledSet | None = None
    """Training rows that score nothing, for thresholds of cuts; None where hardly any are left."""
    store: VariantStore = field(init=False)
    cache: CalibrationCache = field(init=False)
    recovered: RecoveredCuts = field(init=False)
    _curves: dict[tuple[str, bool], list[Curve]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Open the folders; nothing is written yet."""
        self.store = VariantStore(self.root)
        self.cache = CalibrationCache(self.root)
        self.recovered = RecoveredCuts(self.root)

    @classmethod
    def open(
        cls,
        model: Path,
        train: Path,
        evaluation: Path,
        root: Path,
        *,
        seed: int = SEED,
        size: int = CALIBRATION_ROWS,
    ) -> "Workbench":
        """Load the model and the rows, and draw at most ``size`` of those of ``train`` by ``seed``.

        Raises:
            ModelError: the model cannot be loaded, or its tokenizer is of a larger vocabulary.
            DataError: the rows cannot be used, or are for another head than the model's.
        """
        return cls.drawn(Material.load(model, train, evaluation), root, seed=seed, size=size)

    @classmethod
    def drawn(cls, material: Material, root: Path, *, seed: int = SEED, size: int = CALIBRATION_ROWS) -> "Workbench":
        """Return the workbench that is calibrated on at most ``size`` of the training rows, drawn by ``seed``."""
        sample = calibration_sample(material.train, size, seed)
        apart = rows_apart(material.train, size, seed, APART_ROWS)
        enough = len(apart) >= FEWEST_APART
        return cls(material.base, sample, material.evaluation, root, seed, apart if enough else None)

    @cached_property
    def key(self) -> CalibrationKey:
        """The calibration that belongs to this model and these rows."""
        return CalibrationKey(
            weights=self.base.weights_digest,
            tokenizer=self.base.tokenizer_digest,
            architecture=self.base.architecture_digest[:16],
            rows=self.train.digest,
            num_rows=len(self.train),
            max_length=min(TASKS[self.train.head].max_tokens, self.base.max_length),
            loss=TASKS[self.train.head].loss_name,
            micro_batch=MICRO_BATCH,
            batch=BATCH_ROWS,
            dtype="float32",
            seed=self.seed,
        )

    @cached_property
    def calibration(self) -> Calibration:
        """The cached calibration.

        Raises:
            CacheError: it is missing, of another key, or damaged. It is never recomputed silently.
        """
        return self.cache.get(self.key)

    @cached_property
    def latencies(self) -> Latencies:
        """What sublayers take on this machine, as it was measured.

        Raises:
            CacheError: it never was, or the file is damaged. It is never measured silently: others may compute now.
        """
        return self.latency_file.read()

    @cached_property
    def latency_file(self) -> LatencyFile:
        """Where they are kept."""
        return LatencyFile(self.root, self.base, self.evaluation.digest)

    def measure_latencies(self, progress: Progress = lambda done, total: None) -> bool:
        """Measure them unless they are kept already; return whether they were measured now."""
        if self.latency_file.exists:
            return False
        self.latency_file.write(measure_latencies(self.base, self.evaluation.sequences, progress))
        return True

    def curves(
        self,
        scorer: Scorer,
        progress: Progress = lambda done, total: None,
        breath: Breath = no_breath,
        *,
        structures: Structures = Structures.HEADS,
    ) -> Sequence[Curve]:
        """Return the cost curves along a scorer's order: kept in memory, else on disk, else solved now (seconds).

        A scorer with a pass of its own takes it now if it never did, and units inside heads have one that all scorers
        share: ``progress`` counts its rows, and ``breath`` is called after every batch.
        """
        inside_heads = structures is Structures.UNITS
        if (scorer.name, inside_heads) not in self._curves:
            self._curves[scorer.name, inside_heads] = CurveCache(self.root).get_or_solve(
                self.key.digest,
                scorer,
                lambda: self._solved(scorer, progress, breath, inside_heads=inside_heads),
                inside_heads=inside_heads,
            )
        curves = self._curves[scorer.name, inside_heads]
        if structures is Structures.SUBLAYERS:
            return [curve.whole() for curve in curves if isinstance(curve, CostCurve)]  # without units all are
        return curves

    def _solved(self, scorer: Scorer, progress: Progress, breath: Breath, *, inside_heads: bool) -> Sequence[Curve]:
        if not inside_heads:
            return cost_curves(self.base, self.calibration, self.structure_scores(scorer, progress, breath))
        curves = [curve for curve in self.curves(scorer, progress, breath) if isinstance(curve, CostCurve)]
        statistics = self.unit_statistics(progress, breath)
        units = unit_scores(scorer, self.base, self._evidence(scorer, progress, breath), statistics)
        head_orders = [curve.order for curve in curves if curve.kind is Kind.HEAD]
        attention = attention_curves(self.base, self.calibration, statistics, head_orders, units)
        neurons = [curve for curve in curves if curve.kind is Kind.NEURON]
        return [curve for pair in zip(attention, neurons, strict=True) for curve in pair]

    def has_curves(self, scorer: Scorer, structures: Structures = Structures.HEADS) -> bool:
        """Tell whether a structured cut by ``scorer`` needs no more than a look at the disk."""
        inside_heads = structures is Structures.UNITS
        cached = CurveCache(self.root).has(self.key.digest, scorer, inside_heads=inside_heads)
        return (scorer.name, inside_heads) in self._curves or cached

    def unit_statistics(
        self, progress: Progress = lambda done, total: None, breath: Breath = no_breath
    ) -> UnitStatistics:
        """Return what cuts inside heads need of the calibration rows: kept on disk, else taken now (a pass)."""

        def make() -> Mapping[str, Tensor]:
            taken = unit_pass(self.base, self.train, micro_batch=self.key.micro_batch, progress=progress, breath=breath)
            return taken.as_tensors()

        return UnitStatistics.from_tensors(ScoreCache(self.root).get_or_make(self._unit_key, make))

    @property
    def has_unit_statistics(self) -> bool:
        """Whether the pass of ``unit_statistics`` was taken before."""
        return self._unit_key in ScoreCache(self.root)

    @property
    def _unit_key(self) -> ScoreKey:
        return ScoreKey(calibration=self.key.digest, scorer="units", scorer_version=UNIT_PASS_VERSION)

    def has_sums(self, scorer: Streamed) -> bool:
        """Tell whether the scorer's own pass over the rows was taken before."""
        return self._score_key(scorer) in ScoreCache(self.root)

    def structure_scores(
        self, scorer: Scorer, progress: Progress = lambda done, total: None, breath: Breath = no_breath
    ) -> StructureScores:
        """Return the importance of every head and neuron; ``progress`` and ``breath`` as for ``curves``."""
        return scorer.structures(self.base, self._evidence(scorer, progress, breath))

    def weight_scores(
        self, scorer: Scorer, progress: Progress = lambda done, total: None, breath: Breath = no_breath
    ) -> Mapping[str, Tensor]:
        """Return the importance of every prunable weight; ``progress`` and ``breath`` as for ``curves``."""
        return scorer.weights(self.base, self._evidence(scorer, progress, breath))

    def _evidence(self, scorer: Scorer, progress: Progress, breath: Breath) -> Calibration:
        """Return the calibration; for a streamed scorer with its sums, which are read or made when it asks for them."""
        if not isinstance(scorer, Streamed):
            return self.calibration
        key = self._score_key(scorer)

        def make() -> Mapping[str, Tensor]:
            accumulator = scorer.accumulator(self.base)
            return weight_pass(self.base, self.train, scorer.plan, accumulator, progress=progress, breath=breath)

        return replace(self.calibration, load_sums=partial(ScoreCache(self.root).get_or_make, key, make))

    def input_grams(
        self, progress: Progress = lambda done, total: None, breath: Breath = no_breath
    ) -> Mapping[str, Tensor]:
        """Return the Gram matrices that the calibration has not: from disk, or by a pass over its rows now."""
        key = ScoreKey(calibration=self.key.digest, scorer="input_grams", scorer_version=INPUT_GRAMS_VERSION)
        return ScoreCache(self.root).get_or_make(key, lambda: input_grams(self.base, self.train, progress, breath))

    def _score_key(self, scorer: Streamed) -> ScoreKey:
        return ScoreKey(calibration=self.key.digest, scorer=scorer.name, scorer_version=scorer.version)

    def calibrate(self, progress: Progress = lambda done, total: None) -> bool:
        """Make the calibration unless it is cached; return whether it was made now."""
        if self.key in self.cache:
            return False
        self.cache.put(self.key, capture(self.base, self.train, micro_batch=self.key.micro_batch, progress=progress))
        return True

    def dense_model(self) -> SlimBert:
        """Return the model as it was before any cut."""
        return build_slim(self.base, slim_layers(self.base, dense_mask(self.base.shape)))

    def reference(self) -> Tensor:
        """Return the dense model's outputs on the evaluation rows, from the store or computed once.

        They are [n, labels], or of a head that reads every token [T, labels].
        """
        return self._reference

    @cached_property
    def _reference(self) -> Tensor:
        folder = self.root / "references" / digest_of([self.base.digest, self.evaluation.digest])[:16]
        if (folder / CHECKSUM).is_file():
            return self._stored_reference(folder)
        logits = predict_logits(self.dense_model(), self.evaluation.sequences)
        try:
            with new_folder(folder, CHECKSUM) as aside:
                save_file({"logits": logits}, aside / LOGITS)
                write_json(aside / CHECKSUM, sha256_of(aside / LOGITS))
        except (OSError, SafetensorError) as error:
            raise StoreError(
                f"{folder} could not be written: {error}; free space or choose a writable --store"
            ) from error
        return logits

    def _stored_reference(self, folder: Path) -> Tensor:
        """Return the logits of a folder whose bytes are the ones written."""
        try:
            intact = sha256_of(folder / LOGITS) == json.loads((folder / CHECKSUM).read_text(encoding="utf-8"))
            logits: Tensor | None = load_file(folder / LOGITS)["logits"] if intact else None
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise CacheError(f"{folder} is damaged: {error}; delete it") from error
        if logits is None:
            raise CacheError(f"{folder / LOGITS} is damaged: it does not match its checksum; delete {folder}")
        return logits
