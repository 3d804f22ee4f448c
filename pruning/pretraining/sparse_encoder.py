"""The story: a dense encoder, plain text, and at the end a folder like the one it came from whose encoder is sparse.

Prune Once For All (Zafrir et al., 2021): single weights go by magnitude, along the cubic schedule, while the sparse
encoder learns from the dense one on text without labels; its zeros are a pattern that fine-tuning on any task can lock.

Departures. The paper's student learns to fill in masked words (half of the loss) and the teacher's answers to that
(the other half). Ours learns the dense encoder's hidden states after every layer, at every token, and nothing else: an
encoder without a language-model head can be taught so, and a short run has more to learn from than one word in seven.
The paper rewinds the learning rate at every cut; here it rises and falls once. Embeddings are left as they are.
"""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch

from pruning.encoder import BaseModel, load_encoder
from pruning.errors import SpecError
from pruning.files import digest_of
from pruning.imported import zeros_by_tensor
from pruning.material import tokenizer_of
from pruning.out_of_memory import memory_for
from pruning.pretraining.lesson import HiddenStates
from pruning.pretraining.model_folder import require_free, write_model_folder
from pruning.pretraining.plain_text import SHORTEST, PlainText, load_plain_text
from pruning.recovery.checkpoint import Checkpoints
from pruning.recovery.criteria import weight_criterion
from pruning.recovery.distillation import teacher_of
from pruning.recovery.recipe import Criterion, Recipe
from pruning.recovery.rows import split
from pruning.recovery.student import Student
from pruning.recovery.training import Report, train
from pruning.recovery.weight_thinning import WeightThinning
from pruning.slim.convert import dense_mask, slim_layers
from pruning.spec import Pattern, PruneSpec, Scope

OBJECTIVE = "hidden states of every layer"
LENGTH, PIECES = 64, 100_000
"""Usual tokens of a piece of text, and most pieces that are read."""
UNFINISHED = ".unfinished"
"""How the name of the folder ends that keeps the checkpoints of a run beside its result to be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseEncoder:
    """What is wanted.

    Raises:
        SpecError: no sparsity, a pattern or precision that is not reached bit by bit, or numbers that are too small.
    """

    spec: PruneSpec
    """Unstructured: how sparse it is at the end, and among which weights sizes are compared."""
    length: int = LENGTH
    """Most tokens of a piece of text."""
    pieces: int = PIECES
    """Most pieces that are read from the text."""

    def __post_init__(self) -> None:
        """Check every value."""
        if self.spec.sparsity == 0.0:
            raise SpecError("sparsity 0 leaves the encoder as it is; give the share of its weights that is to go")
        if self.spec.pattern is not Pattern.UNSTRUCTURED:
            raise SpecError(
                f"single weights go one by one; got pattern={self.spec.pattern.value!r}: use 'unstructured'"
            )
        for name, least in (("length", SHORTEST), ("pieces", 1)):
            if getattr(self, name) < least:
                raise SpecError(f"{name} must be a whole number of at least {least}; got {getattr(self, name)}")

    @classmethod
    def of(cls, sparsity: float, scope: str = Scope.LAYERWISE, **lengths: int) -> Self:
        """Return what is wanted from plain values.

        Raises:
            SpecError: one of them cannot be.
        """
        values = {"sparsity": sparsity, "pattern": Pattern.UNSTRUCTURED, "scorer": "magnitude", "scope": scope}
        return cls(spec=PruneSpec.from_dict(values), **lengths)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON and digests."""
        return {"spec": self.spec.as_dict(), "length": self.length, "pieces": self.pieces}


def pretraining_recipe(**given: Any) -> Recipe:
    """Return how a sparse encoder is trained: the usual values of a recovery, but for a few and what is ``given``."""
    usual: dict[str, Any] = {
        "learning_rate": 5e-4,
        "gradual": 0.6,
        "criterion": Criterion.MAGNITUDE,
        "held_out_rows": 256,
    }
    return Recipe(**usual | given)


def pretrain(
    source: Path,
    text: Path,
    wish: SparseEncoder,
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    device: str = "cpu",
    report: Report = lambda progress: None,
) -> dict[str, Any]:
    """Write the sparse encoder that ``source`` becomes on plain text to ``out``; return how it went.

    Args:
        source: a model directory, with any head or none, which is copied as it is.
        text: rows of plain text.
        wish: what it is to become.
        recipe: how to train; its ``gradual`` is above 0.
        out: the folder to make. Checkpoints lie beside it until it is there.
        resume: go on from the checkpoint of this very run, if there is one; otherwise it is removed.
        device: where to train.
        report: called after every step; its score is the share of the dense hidden states that is met.

    Raises:
        SpecError: there is something at ``out``, nothing goes bit by bit, or pieces are longer than the model reads.
        ModelError, DataError: the model or the text cannot be used.
        RecoveryError, CacheError: the training cannot go on.
        HostMemoryError, DeviceMemoryError: there is no memory for it; the last checkpoint is whole.
        StoreError: nothing can be written.
    """
    require_free(out)
    if not recipe.gradual:
        raise SpecError("single weights go bit by bit; got gradual=0: give a share above 0")
    base = load_encoder(source)
    if wish.length > base.max_length:
        raise SpecError(
            f"pieces of {wish.length} tokens are longer than the {base.max_length} that this model reads; "
            f"give a length of at most {base.max_length}"
        )
    pieces = load_plain_text(text, tokenizer_of(base), wish.length, wish.pieces)
    identity = _identity(base, pieces, wish, recipe)
    unfinished = out.with_name(out.name + UNFINISHED)
    checkpoints = Checkpoints(unfinished, digest_of(identity)[:16])
    if not resume:
        checkpoints.clear()
    trained, held_out = split(range(len(pieces)), recipe.held_out_rows, recipe.seed)
    where = torch.device(device)
    with memory_for(
        f"training on {device} with {recipe.batch_rows} pieces of {wish.length} tokens a step",
        "free some and go on with --resume, or train with fewer --batch-rows or a shorter --length",
    ):
        outcome = train(
            HiddenStates(recipe, teacher_of(base, where), pieces.sequences, where),
            Student(base, slim_layers(base, dense_mask(base.shape)), recipe, device=where),
            trained,
            held_out,
            checkpoints,
            thinning=WeightThinning(
                recipe, weight_criterion(recipe.criterion), wish.spec.sparsity, wish.spec.scope or Scope.LAYERWISE
            ),
            resume=bool(checkpoints),
            report=report,
        )
    training = asdict(outcome.standing) | {"pieces": len(trained), "held_out": len(held_out), "device": where.type}
    write_model_folder(source, outcome.layers, identity | {"training": training}, out)
    shutil.rmtree(unfinished, ignore_errors=True)
    return identity | {"training": training, "zeros": zeros_by_tensor(load_encoder(out))}


def _identity(base: BaseModel, pieces: PlainText, wish: SparseEncoder, recipe: Recipe) -> dict[str, Any]:
    """Return all that the weights depend on."""
    return {
        "objective": OBJECTIVE,
        "encoder": base.digest,
        "text": pieces.digest,
        **wish.as_dict(),
        "recipe": recipe.as_dict(),
    }
