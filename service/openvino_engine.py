"""A variant computed by OpenVINO: on CPUs, in float32 or bfloat16. Needs the extra ``openvino``."""

import queue
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Self

import numpy as np
import openvino
import torch
from numpy.typing import NDArray
from torch import Tensor

from pruning.encoder import BaseModel
from pruning.errors import PrecisionError
from pruning.probes import probe
from pruning.slim.linear import rounded_rows
from pruning.slim.packed import TokenSequence, positions_of
from pruning.spec import Precision
from pruning.variants import Manifest, VariantStore
from service.engine import DEFAULT_BATCH_TOKENS, Predict, Reading, predict_in_chunks, run_probes
from service.engine_errors import EngineError
from service.openvino_graph import BIAS, EMBEDDED, NOTHING, build_graph
from service.schedule import Lane

HINTS = {Precision.FLOAT32: "f32", Precision.BFLOAT16: "bf16"}
"""Precisions that it computes, and OpenVINO's names of them."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The tables of a base model, shared by all its variants."""

    word_VE: Tensor
    position_PE: Tensor
    token_type_YE: Tensor | None
    """None where the architecture has none; a single type is every token's."""

    @classmethod
    def of(cls, base: BaseModel) -> Self:
        """Return those of ``base``."""
        tables = base.tensors
        token_type = tables.get("embeddings.token_type.weight")
        return cls(tables["embeddings.word.weight"], tables["embeddings.position.weight"], token_type)

    def rows(self, sequences: Sequence[TokenSequence]) -> NDArray[np.float32]:
        """Return the sum of every token's embeddings [T, E], and zeros after them that round up their number."""
        ids_T = torch.tensor([token for sequence in sequences for token in sequence.ids])
        positions_T = torch.from_numpy(positions_of([len(sequence.ids) for sequence in sequences]))
        rows_TE = torch.zeros(rounded_rows(len(ids_T)), self.word_VE.shape[1])
        sums_TE = torch.index_select(self.word_VE, 0, ids_T, out=rows_TE[: len(ids_T)])
        sums_TE += self.position_PE[positions_T]
        if self.token_type_YE is not None and len(self.token_type_YE) > 1:
            sums_TE += self.token_type_YE[torch.tensor([kind for sequence in sequences for kind in sequence.type_ids])]
        elif self.token_type_YE is not None:
            sums_TE += self.token_type_YE[0]
        return rows_TE.numpy()


class OpenVinoBert:
    """A compiled variant. Sequences of any number and length are one pass; any number of threads may ask.

    It is compiled twice: for all cores, and for one each, as many times side by side. A thread that computes alone with
    torch (``compute_threads``) asks the second; the first answers one thread at a time.
    """

    def __init__(self, base: BaseModel, layers: Mapping[str, Tensor], precision: Precision, threads: int) -> None:
        """Compile the graph for ``threads`` cores. Raises what OpenVINO raises."""
        self._embeddings = Embeddings.of(base)
        graph = build_graph(base, layers)
        self.narrow_requests = threads
        self._wide = _requests(graph, precision, threads, streams=1)
        self._narrow = self._wide if threads == 1 else _requests(graph, precision, threads, streams=threads)

    def __call__(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """Return logits [B, labels], float32, on the cores that the calling thread computes on."""
        return self.narrow(sequences) if torch.get_num_threads() == 1 else self.wide(sequences)

    def wide(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """Return logits [B, labels], float32, computed on all cores."""
        return self._ask(self._wide, sequences)

    def narrow(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """Return logits [B, labels], float32, computed on one core."""
        return self._ask(self._narrow, sequences)

    def _ask(self, idle: queue.SimpleQueue[openvino.InferRequest], sequences: Sequence[TokenSequence]) -> Tensor:
        inputs = {EMBEDDED: self._embeddings.rows(sequences), **rectangle(sequences)}
        request = idle.get()
        try:
            logits = request.infer(inputs, share_inputs=True)[0]
            return torch.from_numpy(logits[: len(sequences)].copy())
        finally:
            idle.put(request)


@cache
def _core() -> openvino.Core:
    """Return the one core of this process, which never goes.

    Its CPU plugin gives the thread that makes it a stack for signal handlers. Were it let go in another thread, as
    happens to what is collected, the memory would be taken from under the first one, which the next signal would kill.
    """
    return openvino.Core()


def _requests(
    graph: openvino.Model, precision: Precision, threads: int, *, streams: int
) -> queue.SimpleQueue[openvino.InferRequest]:
    """Return what may be asked at once, ``streams`` of them, which share ``threads`` cores."""
    options = {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
        "ENABLE_CPU_PINNING": False,  # every replica of a machine would pin its threads to the same first cores
    }
    compiled = _core().compile_model(graph, "CPU", options)
    idle: queue.SimpleQueue[openvino.InferRequest] = queue.SimpleQueue()
    for _ in range(streams):
        idle.put(compiled.create_infer_request())
    return idle


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class OpenVinoEngine:
    """Implements ``Engine`` over a compiled graph."""

    model: OpenVinoBert
    manifest: Manifest
    labels: tuple[str, ...]
    max_length: int
    hidden: int
    """Size of a hidden state: what a token costs beside attention."""
    vocabulary: int
    max_batch_tokens: int = DEFAULT_BATCH_TOKENS
    readings: Mapping[str, Reading] | None = None

    @classmethod
    def load(
        cls,
        base: BaseModel,
        store: VariantStore,
        variant_id: str,
        *,
        threads: int,
        max_batch_tokens: int = DEFAULT_BATCH_TOKENS,
    ) -> Self:
        """Return the stored variant of a base model, compiled for ``threads`` cores.

        Raises:
            StoreError: no such variant.
            PrecisionError: neither float32 nor bfloat16.
            ChecksumError: its files were altered.
            EngineError: OpenVINO does not compile it, or its tensors are of another model.
        """
        precision = store.manifest(variant_id).spec.precision
        if precision not in HINTS:
            raise PrecisionError(
                f"variant {variant_id} is {precision}, and the engine openvino computes {' and '.join(HINTS)}; "
                "ask for one of them, or start with --engine torch"
            )
        manifest, layers = store.load(variant_id)
        try:
            model = OpenVinoBert(base, layers, precision, threads)
        except Exception as error:  # of many types, its own and Python's
            words = " ".join(str(error).split())
            raise EngineError(
                f"OpenVINO {openvino.__version__} does not compile variant {variant_id}: {words}; "
                "start with --engine torch, or auto"
            ) from error
        return cls(
            model=model,
            manifest=manifest,
            labels=base.labels,
            max_length=base.max_length,
            hidden=base.shape.hidden,
            vocabulary=base.shape.vocabulary,
            max_batch_tokens=max_batch_tokens,
        )

    @property
    def name(self) -> str:
        """``openvino``."""
        return "openvino"

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    @property
    def side_by_side(self) -> bool:
        """Yes."""
        return True

    def warm_up(self) -> None:
        """Run fixed sequences, on all cores and on one, whichever this thread computes on; raises as ``predict``."""
        for forward in (self.model.wide, self.model.narrow):
            run_probes(partial(self._predict, forward), self.max_length, self.vocabulary)

    def rehearse(self, lane: Lane, lengths: Sequence[int]) -> None:
        """Run the batch on all cores, or on one as often as there are such requests: each has kernels of its own."""
        forward, times = (self.model.wide, 1) if lane is Lane.WIDE else (self.model.narrow, self.model.narrow_requests)
        for _ in range(times):
            self._predict(forward, [probe(length, self.vocabulary) for length in lengths])

    def predict(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """Return logits [n, C] in the order of ``sequences``; raises what ``predict_in_chunks`` raises."""
        return self._predict(self.model, sequences)

    def _predict(self, forward: Predict, sequences: Sequence[TokenSequence]) -> Tensor:
        return predict_in_chunks(forward, sequences, self._fits, self.manifest.variant_id)

    def _fits(self, count: int, tokens: int, longest: int) -> bool:
        """Tell whether sequences keep within the token budget, and waste little of the rectangle that attention sees.

        An empty slot costs attention 2 * S * D multiply-accumulates of a full layer, a token the matrices 12 * D * D:
        the waste may be a sixth.
        """
        waste = (count * longest - tokens) * longest
        return tokens <= self.max_batch_tokens and waste <= self.hidden * tokens


def rectangle(sequences: Sequence[TokenSequence]) -> dict[str, NDArray[Any]]:
    """Return where these sequences lie, at least one, none of them empty: all inputs of the graph but the embeddings.

    Rows, sequences and slots are each rounded up, so that few shapes need a kernel; what is added repeats the first
    row, and its answers are cut off.
    """
    lengths = np.array([len(sequence.ids) for sequence in sequences])
    count, tokens, longest = len(lengths), int(lengths.sum()), int(lengths.max())
    first = np.zeros(rounded_rows(count), np.int32)
    first[:count] = np.cumsum(lengths) - lengths
    slots = np.arange(rounded_rows(longest), dtype=np.int32)
    kept = slots < np.concatenate([lengths, np.ones(len(first) - count, np.int64)])[:, None]
    slot = np.zeros(rounded_rows(tokens), np.int32)
    slot[:tokens] = np.flatnonzero(kept[:count])
    bias = np.where(kept, np.float32(0), np.float32(NOTHING))
    return {"first": first, "source": first[:, None] + np.where(kept, slots, 0), "slot": slot, BIAS: bias}
