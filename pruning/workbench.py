"""Everything a build needs, opened once: base model, rows, calibration, store."""

import logging
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pruning.cache import CalibrationCache
from pruning.calibration import Calibration, CalibrationKey
from pruning.capture import BATCH_ROWS, Progress, capture
from pruning.data import MAX_TOKENS, LabelledSet, calibration_sample, encode_rows, read_rows
from pruning.encoder import BaseModel, load_base_model
from pruning.errors import CacheError, StoreError
from pruning.evaluation import predict_logits
from pruning.files import digest_of
from pruning.slim.convert import build_slim, dense_mask, slim_layers
from pruning.tokenization import TextTokenizer
from pruning.variants import VariantStore

CALIBRATION_ROWS = 2048
MICRO_BATCH = 4
SEED = 0

logger = logging.getLogger(__name__)


@dataclass
class Workbench:
    """A base model, the rows that score and judge its cuts, and the folder that keeps them."""

    base: BaseModel
    train: LabelledSet
    """Calibration rows, in the order they are read."""
    evaluation: LabelledSet
    root: Path
    store: VariantStore = field(init=False)
    cache: CalibrationCache = field(init=False)

    def __post_init__(self) -> None:
        """Open the folders; nothing is written yet."""
        self.store = VariantStore(self.root)
        self.cache = CalibrationCache(self.root)

    @classmethod
    def open(cls, model: Path, train: Path, evaluation: Path, root: Path) -> "Workbench":
        """Load the model and the rows.

        Raises:
            ModelError: the model cannot be loaded.
            DataError: the rows cannot be used.
        """
        base = load_base_model(model)
        tokenizer = TextTokenizer.load(model)
        rows = encode_rows(read_rows(train, base.labels), tokenizer)
        judged = encode_rows(read_rows(evaluation, base.labels), tokenizer)
        return cls(base, calibration_sample(rows, CALIBRATION_ROWS, SEED), judged, root)

    @cached_property
    def key(self) -> CalibrationKey:
        """The calibration that belongs to this model and these rows."""
        return CalibrationKey(
            weights=self.base.weights_digest,
            tokenizer=self.base.tokenizer_digest,
            architecture=digest_of([str(self.base.shape), self.base.activation, self.base.norm_eps])[:16],
            rows=self.train.digest,
            num_rows=len(self.train),
            max_length=MAX_TOKENS,
            loss="cross_entropy",
            micro_batch=MICRO_BATCH,
            batch=BATCH_ROWS,
            dtype="float32",
            seed=SEED,
        )

    @cached_property
    def calibration(self) -> Calibration:
        """The cached calibration.

        Raises:
            CacheError: it is missing, of another key, or damaged. It is never recomputed silently.
        """
        return self.cache.get(self.key)

    def calibrate(self, progress: Progress = lambda done, total: None) -> bool:
        """Make the calibration unless it is cached; return whether it was made now."""
        if self.key in self.cache:
            return False
        self.cache.put(self.key, capture(self.base, self.train, micro_batch=self.key.micro_batch, progress=progress))
        return True

    def reference(self) -> Tensor:
        """Return the dense model's logits [n, labels] on the evaluation rows, from the store or computed once."""
        return self._reference

    @cached_property
    def _reference(self) -> Tensor:
        path = self.root / "references" / f"{digest_of([self.base.digest, self.evaluation.digest])[:16]}.safetensors"
        try:
            stored: Tensor = load_file(path)["logits"]
            return stored
        except FileNotFoundError:
            pass
        except (SafetensorError, KeyError) as error:
            raise CacheError(f"{path} is damaged: {error}; delete it") from error
        logits, _ = predict_logits(
            build_slim(self.base, slim_layers(self.base, dense_mask(self.base.shape))), self.evaluation.sequences
        )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({"logits": logits}, path)
        except (OSError, SafetensorError) as error:
            raise StoreError(
                f"{path} could not be written: {error}; free space or choose a writable --store"
            ) from error
        return logits
