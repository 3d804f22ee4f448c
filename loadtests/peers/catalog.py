"""The contestants: what each is, how it is installed, prepared, started and asked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loadtests.peers.adapters import INFINITY, SPARSEDIAL, TEXTS, Adapter

HERE = Path(__file__).resolve().parent
MODEL = HERE.parent.parent / "embedded" / "model"
REFERENCE = "sparsedial"
"""The contestant whose dense labels the others' are compared with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one contestant runs."""

    bin: Path
    """Folder of its environment's commands."""
    prepared: Path
    """Folder for what it prepares; kept between runs."""
    port: int = 0
    levels: tuple[float, ...] = ()

    def variables(self) -> dict[str, str]:
        """Return how a server is told of all this."""
        return {
            "PEER_MODEL": str(MODEL),
            "PEER_PORT": str(self.port),
            "PEER_PREPARED": str(self.prepared),
            "PYTHONPATH": str(HERE / "common"),
        }


Command = Callable[[Place], Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One server."""

    name: str
    about: str
    """What it is and computes in, for the report."""
    start: Command
    prepare: Command | None = None
    adapter: Adapter = TEXTS
    folder: Path | None = None
    """Its own folder in here, with its requirements; None for SparseDial, which runs where the load tests do."""
    dialled: bool = False
    """Whether it is read at each of the levels."""
    speed_only: bool = False
    """Its labels are not worth comparing."""
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def requirements(self) -> Path | None:
        """Its pinned requirements."""
        return None if self.folder is None else self.folder / "requirements.txt"


def _script(name: str, *arguments: str) -> Command:
    return lambda place: (str(place.bin / "python"), name, *arguments)


def _sparsedial(precision: str) -> Contestant:
    def options(place: Place) -> Sequence[str]:
        levels = ",".join(f"{level:g}" for level in place.levels)
        store = str(place.prepared / "store")
        return ("embedded", "--store", store, "--levels", levels, "--precision", precision)

    return Contestant(
        name={"float32": REFERENCE, "bfloat16": "sparsedial-bf16", "int8": "sparsedial-int8"}[precision],
        about=f"sparsedial serve, {precision}",
        prepare=lambda place: (str(place.bin / "sparsedial"), "prepare", *options(place)),
        start=lambda place: (str(place.bin / "sparsedial"), "serve", *options(place), "--port", str(place.port)),
        adapter=SPARSEDIAL,
        dialled=True,
    )


def _infinity(place: Place) -> Sequence[str]:
    told = {
        "--model-id": str(MODEL),
        "--served-model-name": "checkpoint",
        "--host": "127.0.0.1",
        "--port": str(place.port),
        "--engine": "torch",
        "--device": "cpu",
        "--dtype": "float32",
        "--batch-size": "32",
        "--log-level": "warning",
    }
    return (str(place.bin / "infinity_emb"), "v2", *(word for pair in told.items() for word in pair))


def _bentoml(place: Place) -> Sequence[str]:
    return (str(place.bin / "bentoml"), "serve", "service:Sentiment", "--host", "127.0.0.1", "--port", str(place.port))


def _deepsparse(name: str, about: str, share: str, *, speed_only: bool) -> Contestant:
    return Contestant(
        name=name,
        about=about,
        folder=HERE / "deepsparse",
        prepare=_script("prepare.py", share),
        start=_script("server.py"),
        speed_only=speed_only,
    )


def _onnxserve(name: str, about: str, *arguments: str) -> Contestant:
    return Contestant(
        name=name,
        about=about,
        folder=HERE / "onnxserve",
        prepare=_script("prepare.py", *arguments),
        start=_script("server.py"),
    )


CONTESTANTS = (
    _sparsedial("float32"),
    _sparsedial("bfloat16"),
    _sparsedial("int8"),
    Contestant(
        name="ovserve",
        about="OpenVINO, bfloat16, FastAPI, micro-batcher of 32 texts and 2 ms",
        folder=HERE / "ovserve",
        prepare=_script("prepare.py"),
        start=_script("server.py"),
    ),
    _onnxserve("onnxserve", "ONNX Runtime, float32, FastAPI, micro-batcher of 32 texts and 2 ms"),
    _onnxserve("onnxserve-int8", "the same, quantized dynamically to int8", "int8"),
    Contestant(
        name="hf",
        about="transformers pipeline, float32, FastAPI, one request at a time",
        folder=HERE / "hf",
        start=_script("server.py"),
    ),
    Contestant(
        name="litserve",
        about="LitServe, torch float32, batches of 32 requests within 5 ms",
        folder=HERE / "litserve",
        start=_script("server.py"),
    ),
    Contestant(
        name="infinity",
        about="infinity-emb, torch float32, batches of 32",
        folder=HERE / "infinity",
        start=_infinity,
        adapter=INFINITY,
    ),
    Contestant(
        name="bentoml",
        about="BentoML, torch float32, adaptive batches of 32",
        folder=HERE / "bentoml",
        start=_bentoml,
    ),
    Contestant(
        name="rayserve",
        about="Ray Serve example, torch float32, @serve.batch of 32 within 5 ms, default proxy",
        folder=HERE / "rayserve",
        start=_script("server.py"),
    ),
    _deepsparse(
        "deepsparse", "DeepSparse, float32 dense, FastAPI, micro-batcher, at most 256 tokens", "0", speed_only=False
    ),
    _deepsparse("deepsparse-0.9", "the same, 90 % of the encoder zeroed: for speed only", "0.9", speed_only=True),
)
