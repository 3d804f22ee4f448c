"""One variant ready to answer on one device."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from pruning.errors import DeviceMemoryError, PrecisionError
from pruning.slim.bert import SlimBert
from pruning.slim.convert import DTYPES, SHARED, build_slim
from pruning.slim.graphs import GraphedBert
from pruning.slim.packed import PackedBatch, TokenSequence
from pruning.slim.spans import computes_spans
from pruning.spec import Precision
from pruning.tokenization import Encoded
from pruning.variants import Manifest, VariantStore

if TYPE_CHECKING:
    from pruning.encoder import BaseModel

DEFAULT_BATCH_TOKENS = 4096
WARM_UP_LENGTHS = (4, 16, 128)
"""Lengths of the fixed sequences that are run before a variant may answer."""


class NonFiniteLogits(RuntimeError):
    """The model's answer holds a NaN or an infinity."""


class SharedBase:
    """A base model on one device: what its variants share is there once for each precision that was ever asked for."""

    def __init__(self, base: "BaseModel", device: torch.device) -> None:
        """Keep ``base``; nothing is moved before it is asked for."""
        self.device = device
        self._base = base
        self._in_precision: dict[Precision, BaseModel] = {}

    def in_precision(self, precision: Precision) -> "BaseModel":
        """Return the base with the shared tensors on the device in ``precision``."""
        if precision not in self._in_precision:
            tensors = self._base.tensors
            shared = {slot: tensors[slot].to(self.device, DTYPES[precision]) for slot in SHARED.values()}
            self._in_precision[precision] = replace(self._base, tensors=tensors | shared)
        return self._in_precision[precision]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class Engine:
    """A model with what its answers need. Any number of threads may call its methods at once.

    Warm it up before: threads that meet at its first use may lay the same weights out twice, and keep one of the two.
    """

    model: SlimBert
    manifest: Manifest
    labels: tuple[str, ...]
    """Label of each logit."""
    max_length: int
    """Longest sequence, in tokens, special ones included."""
    device: torch.device
    max_batch_tokens: int = DEFAULT_BATCH_TOKENS
    """Tokens of one forward pass; a single longer sequence runs alone."""
    graphs: GraphedBert | None = None
    """The model captured in CUDA graphs, where the device replays them."""

    @classmethod
    def load(
        cls,
        shared: SharedBase,
        store: VariantStore,
        variant_id: str,
        *,
        max_batch_tokens: int = DEFAULT_BATCH_TOKENS,
    ) -> Self:
        """Return the stored variant of a base model, on the device where that one is shared.

        Raises:
            StoreError: no such variant, or one of another model.
            PrecisionError: one that this device or processor does not compute.
            DeviceMemoryError: the device has no room for it.
            ChecksumError: its files were altered.
        """
        _check_device(store.manifest(variant_id).spec.precision, variant_id, shared.device)
        manifest, layers = store.load(variant_id)
        try:
            base = shared.in_precision(manifest.spec.precision)
            model = build_slim(base, layers).to(shared.device)
            graphs = None
            if computes_spans(shared.device):
                graphs = GraphedBert.capture(model, max_tokens=max_batch_tokens, max_length=base.max_length)
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise DeviceMemoryError(
                f"variant {variant_id} does not fit into the memory of {shared.device} beside what is loaded: {error}; "
                "keep fewer --levels, lower --max-batch-tokens, or use a smaller precision"
            ) from error
        return cls(
            model=model,
            manifest=manifest,
            labels=base.labels,
            max_length=base.max_length,
            device=shared.device,
            max_batch_tokens=max_batch_tokens,
            graphs=graphs,
        )

    def warm_up(self) -> None:
        """Run fixed sequences of several lengths, alone and packed: weights are laid out, and a broken model shows.

        Raises:
            NonFiniteLogits: the model answers with a NaN or an infinity.
        """
        probes = [_probe(min(length, self.max_length), self.model.word.num_embeddings) for length in WARM_UP_LENGTHS]
        for probe in probes:
            self.predict([probe])
        self.predict(probes)

    @torch.inference_mode()
    def predict(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """Return logits [n, C], float32 on the CPU, in the order of ``sequences``.

        Raises:
            NonFiniteLogits: a logit is not finite.
        """
        order = sorted(range(len(sequences)), key=lambda index: len(sequences[index].ids))
        parts = [self._forward([sequences[index] for index in chunk]) for chunk in self._chunks(order, sequences)]
        logits = torch.empty(len(order), len(self.labels))
        logits[torch.tensor(order)] = torch.cat(parts)
        if not torch.isfinite(logits).all():
            raise NonFiniteLogits(f"variant {self.manifest.variant_id} answered with logits that are not finite")
        return logits

    def _forward(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """Return logits [n, C], float32 on the CPU, of sequences that fit one pass."""
        if self.graphs is not None:
            return self.graphs(sequences)
        logits: Tensor = self.model(PackedBatch.from_sequences(sequences, self.device)).float().cpu()
        return logits

    def _chunks(self, order: Sequence[int], sequences: Sequence[TokenSequence]) -> Iterator[list[int]]:
        """Split ``order`` into neighbours that fit the token budget together."""
        chunk: list[int] = []
        tokens = 0
        for index in order:
            length = len(sequences[index].ids)
            if chunk and tokens + length > self.max_batch_tokens:
                yield chunk
                chunk, tokens = [], 0
            chunk.append(index)
            tokens += length
        yield chunk


def _check_device(precision: Precision, variant_id: str, device: torch.device) -> None:
    if precision.only_on not in (None, device.type):
        raise PrecisionError(
            f"variant {variant_id} is {precision}, which only {precision.only_on} answers in, and this replica "
            f"computes on {device}; ask for float32 or bfloat16"
        )


def _probe(length: int, vocabulary: int) -> Encoded:
    """Return a fixed sequence of token ids spread over the vocabulary."""
    return Encoded([(7919 * position) % vocabulary for position in range(length)], [0] * length)


@dataclass(frozen=True, slots=True)
class Live:
    """The engine that answers and the generation it answers under: read once for each batch, replaced as one."""

    generation: int
    engine: Engine
