"""Settings of the service: each a field here and a ``SPARSEDIAL_*`` variable; many are flags of ``serve`` too."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from pruning.errors import SpecError
from pruning.spec import MOST_ROUNDS, Precision, Recover, precisions_of

ENV_PREFIX = "SPARSEDIAL_"
DEFAULT_LEVELS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


class Device(StrEnum):
    """Where replicas compute."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class EngineName(StrEnum):
    """What computes on CPUs."""

    AUTO = "auto"
    TORCH = "torch"
    OPENVINO = "openvino"


class Ingress(StrEnum):
    """How requests reach a replica."""

    HAPROXY = "haproxy"
    PROXY = "proxy"


class Settings(BaseSettings):
    """What one service needs to know. Precedence: flag, then ``SPARSEDIAL_<FIELD>``, then the default."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,  # how compose files and CI say "not set"
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,  # a secret may be part of it
    )

    model: str = "embedded"
    """Model directory (Hugging Face layout, safetensors), hub id (fetched once), or ``embedded``."""
    host: str = "127.0.0.1"
    """Address to bind. Loopback unless told otherwise."""
    port: int = Field(default=8000, ge=1, le=65535)
    """Port of inference and admin routes."""
    replicas: int = Field(default=1, ge=1, le=256)
    """Model replicas; on GPUs, one per GPU unless ``gpus_per_replica`` says otherwise."""
    max_replicas: int | None = Field(default=None, ge=1, le=256)
    """Replicas that load may call for; never fewer than ``replicas`` are there. Default: no more than those."""
    replicas_per_node: int | None = Field(default=None, ge=1, le=256)
    """Most replicas on one machine of a cluster. Default: Ray spreads them, and puts on one what it has to."""
    target_inflight: float = Field(default=16.0, gt=0, allow_inf_nan=False)
    """Requests in flight per replica: with ``max_replicas``, more call for another one, fewer let one go."""
    scale_up_s: float = Field(default=10.0, ge=0, allow_inf_nan=False)
    """Seconds of more requests in flight than that before a replica is added."""
    scale_down_s: float = Field(default=600.0, ge=0, allow_inf_nan=False)
    """Seconds of fewer before one is let go; keep it minutes where the governor turns the dial too."""
    gpus_per_replica: float = Field(default=1.0, gt=0, le=1)
    """Share of a GPU that a replica takes: 0.5 puts two on each. They share its memory, which Ray does not divide."""
    store: Path | None = None
    """Folder of scores, variants and state. Default: a folder per model under the user's cache directory."""
    sparsity: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Sparsity to serve when the store has no committed variant yet."""
    device: Device = Device.AUTO
    """``auto`` takes the GPUs that Ray assigns, else the CPU."""
    engine: EngineName = EngineName.AUTO
    """``torch``, ``openvino`` (an extra, CPUs alone), or ``auto``: the faster of those installed."""
    train: Path | None = None
    """Labelled rows for scoring: JSON Lines, CSV, TSV or Parquet. The embedded model has its own."""
    eval: Path | None = None
    """Labelled rows for evaluation; not the file of ``train``."""
    levels: Annotated[tuple[float, ...], NoDecode] = DEFAULT_LEVELS
    """The ladder: sparsities built ahead and kept loaded; dense (0) is always among them."""
    scorer: str = "fisher"
    """Importance scorer of the ladder; [Scorers](#scorers) has them all."""
    pattern: str = "structured"
    """Sparsity pattern of the ladder: ``structured`` (smaller matrices), ``unstructured`` or ``2:4`` (zeros)."""
    recover: Recover | None = None
    """Recovery of the ladder: ``sequential`` keeps more accuracy, in seconds a cut. Default: the usual one."""
    rounds: int = Field(default=1, ge=1, le=MOST_ROUNDS)
    """The ladder's cuts score anew whenever another Nth of the weights has gone: for deep levels; minutes each."""
    precision: Annotated[tuple[Precision, ...], NoDecode] = (Precision.FLOAT32,)
    """Numbers of the ladder, the usual ones first: ``float32``, ``bfloat16``, ``int8`` (CPUs), ``float16`` (GPUs)."""
    accuracy_floor: float | None = Field(default=None, ge=0.0, le=1.0)
    """Accuracy below which nothing is promoted. Default: dense accuracy less 0.05."""
    max_batch_tokens: int = Field(default=4096, ge=1)
    """Token budget of one batch."""
    max_batch_ms: float = Field(default=50.0, gt=0, allow_inf_nan=False)
    """Milliseconds that a batch may take, at the pace measured for its level; a single request may take longer."""
    max_queue_tokens: int = Field(default=32768, ge=1)
    """Tokens that may wait in a replica; beyond them a request is refused with 429."""
    max_queue_s: float = Field(default=2.0, gt=0, allow_inf_nan=False)
    """Seconds that a request may have to wait, at the rate measured; beyond them it is refused with 429."""
    max_client_batch_size: int = Field(default=256, ge=1)
    """Texts in one request."""
    max_text_characters: int = Field(default=100_000, ge=1)
    """Characters in one text; longer ones are refused, shorter ones truncated to the model's positions."""
    max_body_bytes: int = Field(default=4_000_000, ge=1)
    """Bytes in one request body."""
    request_timeout_s: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    """Seconds after which a request is answered with 504."""
    drain_timeout_s: float = Field(default=20.0, ge=0, allow_inf_nan=False)
    """Seconds that a stopping service gives to requests in flight."""
    threads: int | None = Field(default=None, ge=1)
    """Compute threads per replica. Default: a machine's cores shared out among the most replicas that it may get."""
    ingress: Ingress = Ingress.HAPROXY
    """``haproxy`` is the fast path; ``proxy`` goes back to Ray Serve's default one."""
    keep_variants: int = Field(default=64, ge=1)
    """Variants kept in the store beside the ladder's, the live and the previous one; of others the oldest go."""
    address: str | None = None
    """Ray cluster to join (``auto`` or host:port). Default: a local one of our own."""
    admin_token: SecretStr | None = Field(default=None, min_length=1)
    """Bearer token of ``/admin``. Default: made at first start and kept in the store, mode 0600."""
    api_key: SecretStr | None = Field(default=None, min_length=1)
    """Bearer token of the inference routes. Default: none is asked for."""

    @field_validator("levels", mode="before")
    @classmethod
    def _split_levels(cls, value: object) -> object:
        """Accept ``0,0.3,0.5``; every level in [0, 1), dense always among them, sorted."""
        if isinstance(value, str):
            value = [part for part in value.split(",") if part.strip()]
        if not isinstance(value, (list, tuple)):
            return value
        try:
            numbers = {float(number) for number in value} | {0.0}
        except (TypeError, ValueError) as error:
            raise ValueError("levels must be numbers in [0, 1), such as 0,0.3,0.5") from error
        if not all(0.0 <= number < 1.0 for number in numbers):  # NaN is not
            raise ValueError(f"levels must lie in [0, 1); got {sorted(numbers)}")
        return tuple(sorted(numbers))

    @field_validator("precision", mode="before")
    @classmethod
    def _split_precisions(cls, value: object) -> object:
        """Accept ``float32,int8``: each once, the usual one first."""
        words = (
            value if isinstance(value, str) else ",".join(map(str, value)) if isinstance(value, (list, tuple)) else ""
        )
        try:
            return precisions_of(words)
        except SpecError as error:
            raise ValueError(str(error)) from None

    @field_validator("admin_token", "api_key", mode="before")
    @classmethod
    def _strip(cls, value: object) -> object:
        """Drop the newline that a secret read from a file often ends with."""
        return value.strip() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_replicas(self) -> Self:
        """Refuse bounds that contradict each other."""
        if self.most_replicas < self.replicas:
            raise ValueError(
                f"max_replicas {self.max_replicas} is less than replicas {self.replicas}; raise it or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _check_precision(self) -> Self:
        """Refuse one that the device does not answer in, and two that no device answers in."""
        for precision in self.precision:
            only = precision.only_on
            if only is not None and self.device not in (Device.AUTO, only):
                raise ValueError(
                    f"only {only} answers in precision {precision}; use device {only}, or float32 or bfloat16"
                )
        if len(self._only_on) > 1:
            raise ValueError("no device answers in int8 and in float16; take one of them out of precision")
        return self

    @model_validator(mode="after")
    def _check_engine(self) -> Self:
        """Refuse what OpenVINO does not compute here."""
        if self.engine is EngineName.OPENVINO and self.device is Device.CUDA:
            raise ValueError("engine openvino computes on CPUs alone; use device cpu, or engine torch")
        for precision in self.precision:
            if self.engine is EngineName.OPENVINO and precision.only_on is not None:
                raise ValueError(f"precision {precision} is computed by torch alone; use engine torch or auto")
        return self

    @model_validator(mode="after")
    def _check_secrets(self) -> Self:
        """Refuse one secret for both: the inference key must never open ``/admin``."""
        if self.admin_token is not None and self.admin_token == self.api_key:
            raise ValueError("admin_token and api_key must differ: who may ask must not thereby turn the dial")
        return self

    @property
    def most_replicas(self) -> int:
        """Replicas that there may be at once, those that are being replaced apart."""
        return self.replicas if self.max_replicas is None else self.max_replicas

    @property
    def most_on_node(self) -> int:
        """How many of them one machine may get."""
        return min(self.most_replicas, self.replicas_per_node or self.most_replicas)

    def wants_gpu(self, gpus: float) -> bool:
        """Tell whether replicas compute on GPUs where there are ``gpus``: if told to, or if they can and may choose."""
        if self.device is Device.AUTO and not self._only_on:
            return gpus >= 1 and self.engine is not EngineName.OPENVINO
        return Device.CUDA in {self.device, *self._only_on}

    @property
    def _only_on(self) -> set[str]:
        """The devices without which one of the precisions cannot be answered in."""
        return {precision.only_on for precision in self.precision if precision.only_on is not None}
