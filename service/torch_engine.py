"""A variant computed by torch: on CPUs in every precision, and on GPUs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from pruning.errors import DeviceMemoryError, PrecisionError
from pruning.probes import probe
from pruning.slim.bert import SlimBert
from pruning.slim.convert import DTYPES, build_slim, shared_slots
from pruning.slim.graphs import GraphedBert
from pruning.slim.packed import PackedBatch, TokenSequence
from pruning.slim.spans import computes_spans
from pruning.spec import Precision
from pruning.variants import Manifest, VariantStore
from service.engine import DEFAULT_BATCH_TOKENS, Reading, predict_in_chunks, run_probes
from service.schedule import Lane

if TYPE_CHECKING:
    from pruning.encoder import BaseModel


class SharedBase:
    """A base model on one device: what its variants share is there once for each precision that was ever asked for."""

    def __init__(self, base: "BaseModel", device: torch.device) -> None:
        """Keep ``base``; nothing is moved before it is asked for."""
        self.device = device
        self.base = base
        self._in_precision: dict[Precision, BaseModel] = {}

    def in_precision(self, precision: Precision) -> "BaseModel":
        """Return the base with the shared tensors on the device in ``precision``."""
        if precision not in self._in_precision:
            tensors = self.base.tensors
            shared = {
                slot: tensors[slot].to(self.device, DTYPES[precision]) for slot in shared_slots(self.base).values()
            }
            self._in_precision[precision] = replace(self.base, tensors=tensors | shared)
        return self._in_precision[precision]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class TorchEngine:
    """Implements ``Engine`` over packed batches of ``SlimBert``."""

    model: SlimBert
    manifest: Manifest
    labels: tuple[str, ...]
    """Label of each logit."""
    max_length: int
    """Longest sequence, in tokens, special ones included."""
    device: torch.device
    max_batch_tokens: int = DEFAULT_BATCH_TOKENS
    """Tokens of one forward pass; a single longer sequence runs alone."""
    readings: Mapping[str, Reading] | None = None
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

    @property
    def name(self) -> str:
        """``torch``."""
        return "torch"

    @property
    def side_by_side(self) -> bool:
        """On CPUs; the graphs of a GPU share their memory."""
        return self.device.type == "cpu"

    def warm_up(self) -> None:
        """Run fixed sequences; raises what ``run_probes`` raises."""
        run_probes(self.predict, self.max_length, self.model.word.num_embeddings)

    def rehearse(self, lane: Lane, lengths: Sequence[int]) -> None:
        """Run the batch if this thread has the lane's cores: kernels are for so many. A GPU's graphs are all there."""
        if self.device.type == "cpu" and (lane is Lane.NARROW) == (torch.get_num_threads() == 1):
            self.predict([probe(length, self.model.word.num_embeddings) for length in lengths])

    @torch.inference_mode()
    def predict(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """Return logits [n, C] in the order of ``sequences``; raises what ``predict_in_chunks`` raises."""
        return predict_in_chunks(self._forward, sequences, self._fits, self.manifest.variant_id)

    def _forward(self, sequences: Sequence[TokenSequence]) -> Tensor:
        if self.graphs is not None:
            return self.graphs(sequences)
        logits: Tensor = self.model(PackedBatch.from_sequences(sequences, self.device))
        return logits

    def _fits(self, count: int, tokens: int, longest: int) -> bool:
        """Tell whether sequences keep within the token budget."""
        return tokens <= self.max_batch_tokens


def _check_device(precision: Precision, variant_id: str, device: torch.device) -> None:
    if precision.only_on not in (None, device.type):
        raise PrecisionError(
            f"variant {variant_id} is {precision}, which only {precision.only_on} answers in, and this replica "
            f"computes on {device}; ask for float32 or bfloat16"
        )
