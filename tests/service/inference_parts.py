"""Parts of an inference replica, small and real: a tiny model, its variants, and a runtime around them."""

import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import httpx
import torch
from torch import Tensor

from pruning.cost import structured_cost
from pruning.encoder import BaseModel
from pruning.evaluation import Evaluation
from pruning.masks.structures import StructureMask
from pruning.metrics import Metric
from pruning.slim.convert import DTYPES, build_slim, in_dtype, layer_widths, slim_layers
from pruning.slim.packed import TokenSequence
from pruning.spec import Precision, PruneSpec
from pruning.timing import Speed
from pruning.tokenization import Encoded, TextTokenizer
from pruning.variants import Manifest, VariantStore
from service.engine import Engine, Live
from service.feedback import FeedbackDesk
from service.info import ModelCard
from service.ingress import build_inference_api
from service.metrics import ReplicaMetrics
from service.protocol import Peer
from service.runtime import InferenceRuntime
from service.settings import Settings
from service.shelf import EngineShelf
from service.torch_engine import TorchEngine

CPU = torch.device("cpu")
JSON = {"content-type": "application/json"}
ON_ALL = ["x-request-id", "x-generation", "x-variant", "x-sparsity", "x-total-time"]
PROMISED = [
    *ON_ALL,
    "x-tokenization-time",
    "x-queue-time",
    "x-inference-time",
    "x-truncated",
    "x-compute-tokens",
]
CARD = ModelCard(model_id="tiny", digest="d" * 64, version="1.2.3", threads=2)


def layers_of(base: BaseModel, sparsity: float) -> dict[str, Tensor]:
    """Return the layers with the last heads and neurons cut away."""
    shape = base.shape
    keep = 1.0 - sparsity
    heads = torch.arange(shape.num_heads) < round(keep * shape.num_heads)
    neurons = torch.arange(shape.ffn) < round(keep * shape.ffn)
    mask = StructureMask(heads.repeat(shape.num_layers, 1), neurons.repeat(shape.num_layers, 1))
    return slim_layers(base, mask)


def manifest_of(base: BaseModel, layers: dict[str, Tensor], variant_id: str, sparsity: float) -> Manifest:
    heads, neurons = layer_widths(layers, base.shape)
    cost = structured_cost(base.shape, heads, neurons)
    return Manifest(
        variant_id=variant_id,
        spec=PruneSpec(sparsity=sparsity),
        achieved_sparsity=1.0 - cost.prunable_parameters / base.shape.prunable_weights,
        base_digest=base.digest,
        heads=heads,
        neurons=neurons,
        cost=cost,
        evaluation=Evaluation(metric=Metric(name="accuracy", value=0.9, low=0.85, high=0.93), agreement=0.97, rows=600),
        speed=Speed(latency_p50_ms=4.0, items_per_s=250.0),
        build_seconds={},
    )


def put_variant(
    base: BaseModel,
    store: VariantStore,
    variant_id: str,
    sparsity: float,
    precision: Precision = Precision.FLOAT32,
) -> Manifest:
    layers = in_dtype(layers_of(base, sparsity), DTYPES[precision])
    manifest = manifest_of(base, layers, variant_id, sparsity)
    return store.put(layers, replace(manifest, spec=replace(manifest.spec, precision=precision)))


def engine_of(base: BaseModel, variant_id: str = "0" * 16, sparsity: float = 0.0, **changes: Any) -> TorchEngine:
    layers = layers_of(base, sparsity)
    engine = TorchEngine(
        model=build_slim(base, layers),
        manifest=manifest_of(base, layers, variant_id, sparsity),
        labels=base.labels,
        max_length=base.max_length,
        device=CPU,
    )
    return replace(engine, **changes)


class BrokenModel(torch.nn.Module):
    """Fails, or answers with NaN, when a batch holds a chosen token."""

    def __init__(self, model: Any, token: int, *, nan: bool) -> None:
        super().__init__()
        self.inner = model
        self.word = model.word
        self.token = token
        self.nan = nan

    def forward(self, batch: Any) -> Tensor:
        logits = cast(Tensor, self.inner(batch))
        if not (batch.ids_T == self.token).any():
            return logits
        if self.nan:
            return logits * float("nan")
        raise RuntimeError("a kernel failed")


class HeldModel(torch.nn.Module):
    """Computes nothing until it is let go."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.inner = model
        self.word = model.word
        self.entered = threading.Event()
        self.let_go = threading.Event()

    def forward(self, batch: Any) -> Tensor:
        self.entered.set()
        assert self.let_go.wait(30)
        return cast(Tensor, self.inner(batch))


class Opposite(torch.nn.Module):
    """Gives every text the other of two labels."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.inner = model
        self.word = model.word

    def forward(self, batch: Any) -> Tensor:
        return -cast(Tensor, self.inner(batch))


def breaking_on(base: BaseModel, word: str, *, nan: bool) -> TorchEngine:
    """Return an engine that fails, or answers with NaN, when a batch holds ``word``."""
    (encoded,) = TextTokenizer.load(base.path).encode([word], max_length=base.max_length)
    return engine_of(base, model=BrokenModel(engine_of(base).model, encoded.ids[1], nan=nan))


def sequence(*ids: int) -> Encoded:
    return Encoded(list(ids), [0] * len(ids))


def sequences(lengths: Sequence[int], vocabulary: int) -> list[TokenSequence]:
    generator = torch.Generator().manual_seed(7)
    return [
        Encoded(cast(list[int], torch.randint(vocabulary, (length,), generator=generator).tolist()), [0] * length)
        for length in lengths
    ]


def runtime_of(engine: Engine, model_dir: Path, settings: Settings | None = None, **options: Any) -> InferenceRuntime:
    settings = settings or Settings()
    return InferenceRuntime(
        EngineShelf(lambda variant_id: engine, Live(1, engine)),
        TextTokenizer.load(model_dir),
        ReplicaMetrics(CARD.version),
        settings,
        replica_id="r1",
        **options,
    )


def desk_of(runtime: InferenceRuntime, peers: Sequence[Peer] = (), key: str = "key") -> FeedbackDesk:
    return FeedbackDesk(runtime.answers, replica_id="r1", peers=lambda: peers, key=key)


@asynccontextmanager
async def client_of(
    runtime: InferenceRuntime, settings: Settings | None = None, api_key: str | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield an HTTP client of a started runtime; drain it afterwards."""
    api = build_inference_api(runtime, desk_of(runtime), settings or Settings(), CARD, api_key)
    runtime.start()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://replica") as client:
        yield client
    await runtime.stop()
