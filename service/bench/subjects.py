"""What is measured: levels of a stored model, or of a shape with random weights, each ready to be timed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pruning.cost import HeadDims, Shape, structured_cost
from pruning.pipeline import in_precision
from pruning.random_model import even_mask, random_model
from pruning.slim.bert import SlimBert
from pruning.slim.convert import build_slim, slim_layers
from pruning.slim.packed import TokenSequence
from pruning.spec import Precision, PruneSpec
from pruning.variants import Manifest
from pruning.workbench import Workbench


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """One level in one precision."""

    spec: PruneSpec
    achieved_sparsity: float
    variant: str | None
    """Its id in the store; None of random weights."""
    shape: Shape
    """Of the dense model."""
    heads: Sequence[int]
    """Kept in each layer."""
    neurons: Sequence[int]
    model: SlimBert
    head_dims: Sequence[HeadDims] | None = None
    """Of each layer; None: heads are whole."""

    def macs(self, lengths: Iterable[int]) -> int:
        """Return the multiply-accumulates of sequences of these lengths, in tokens: of real ones, without padding."""
        widths = (self.heads, self.neurons, self.head_dims)
        return sum(structured_cost(self.shape, *widths, length=length).macs for length in lengths)


def stored_subjects(bench: Workbench, manifests: Sequence[Manifest]) -> list[Subject]:
    """Return the variants of these manifests, loaded.

    Raises:
        StoreError: a variant cannot be read, or is altered.
    """
    return [
        Subject(
            spec=manifest.spec,
            achieved_sparsity=manifest.achieved_sparsity,
            variant=manifest.variant_id,
            shape=bench.base.shape,
            heads=manifest.heads,
            neurons=manifest.neurons,
            model=build_slim(bench.base, bench.store.load(manifest.variant_id)[1]),
            head_dims=manifest.head_dims,
        )
        for manifest in manifests
    ]


def random_subjects(
    name: str, shape: Shape, levels: Sequence[float], precisions: Sequence[Precision], rows: Sequence[TokenSequence]
) -> list[Subject]:
    """Return even cuts of one model of random weights; int8 takes its ranges from ``rows``.

    Raises:
        PrecisionError: this machine does not compute one of the precisions.
    """
    base = random_model(name, shape)
    subjects = []
    for precision in precisions:
        for level in levels:
            mask = even_mask(shape, level)
            layers = in_precision(base, slim_layers(base, mask), precision, rows)
            subject = Subject(
                spec=PruneSpec(sparsity=level, scorer="magnitude", recover="none", precision=precision),  # type: ignore[arg-type]
                achieved_sparsity=mask.sparsity(shape),
                variant=None,
                shape=shape,
                heads=mask.head_counts,
                neurons=mask.neuron_counts,
                model=build_slim(base, layers),
            )
            subjects.append(subject)
    return subjects
