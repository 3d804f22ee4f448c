"""Settings of the service: each a command-line flag, a ``SPARSEDIAL_*`` variable and a field here."""

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

DEFAULT_LEVELS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


class Device(StrEnum):
    """Where replicas compute."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Ingress(StrEnum):
    """How requests reach a replica."""

    HAPROXY = "haproxy"
    PROXY = "proxy"


class Settings(BaseSettings):
    """What one service needs to know. Precedence: flag, then ``SPARSEDIAL_<FIELD>``, then the default."""

    model_config = SettingsConfigDict(env_prefix="SPARSEDIAL_", frozen=True, extra="forbid")

    model: str = "embedded"
    """Model directory (Hugging Face layout, safetensors), hub id in the local cache, or ``embedded``."""
    host: str = "127.0.0.1"
    """Address to bind. Loopback unless told otherwise."""
    port: int = Field(default=8000, ge=1, le=65535)
    """Port of inference and admin routes."""
    replicas: int = Field(default=1, ge=1, le=256)
    """Model replicas; on GPUs, one per GPU."""
    store: Path | None = None
    """Folder of scores, variants and state. Default: a folder per model under the user's cache directory."""
    sparsity: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Sparsity to serve when the store has no committed variant yet."""
    device: Device = Device.AUTO
    """``auto`` takes the GPUs that Ray assigns, else the CPU."""
    train: Path | None = None
    """Labelled rows for scoring: JSON Lines, CSV, TSV or Parquet. The embedded model has its own."""
    eval: Path | None = None
    """Labelled rows for evaluation, disjoint from ``train``."""
    levels: Annotated[tuple[float, ...], NoDecode] = DEFAULT_LEVELS
    """The ladder: sparsities built ahead and kept loaded."""
    scorer: str = "fisher"
    """Importance scorer of the ladder."""
    pattern: str = "structured"
    """Sparsity pattern of the ladder."""
    accuracy_floor: float | None = Field(default=None, ge=0.0, le=1.0)
    """Accuracy below which nothing is promoted. Default: dense accuracy less 0.05."""
    max_batch_tokens: int = Field(default=4096, ge=1)
    """Token budget of one batch."""
    max_queue_tokens: int = Field(default=32768, ge=1)
    """Tokens that may wait in a replica; beyond them a request is refused with 429."""
    max_client_batch_size: int = Field(default=256, ge=1)
    """Texts in one request."""
    max_text_characters: int = Field(default=100_000, ge=1)
    """Characters in one text; longer ones are refused, shorter ones truncated to the model's positions."""
    max_body_bytes: int = Field(default=4_000_000, ge=1)
    """Bytes in one request body."""
    request_timeout_s: float = Field(default=30.0, gt=0)
    """Seconds after which a request is answered with 504."""
    drain_timeout_s: float = Field(default=20.0, ge=0)
    """Seconds that a stopping service gives to requests in flight."""
    threads: int | None = Field(default=None, ge=1)
    """Torch threads per replica. Default: the machine's cores shared out among the replicas."""
    ingress: Ingress = Ingress.HAPROXY
    """``haproxy`` is the fast path; ``proxy`` goes back to Ray Serve's default one."""
    address: str | None = None
    """Ray cluster to join (``auto`` or host:port). Default: a local one of our own."""
    admin_token: SecretStr | None = None
    """Bearer token of ``/admin``. Default: made at first start and kept in the store, mode 0600."""
    api_key: SecretStr | None = None
    """Bearer token of the inference routes. Default: none is asked for."""

    @field_validator("levels", mode="before")
    @classmethod
    def _split_levels(cls, value: object) -> object:
        """Accept ``0,0.3,0.5``; every level in [0, 1), dense always among them, sorted."""
        if isinstance(value, str):
            value = [float(part) for part in value.split(",") if part.strip()]
        if isinstance(value, (list, tuple)):
            numbers = {float(number) for number in value} | {0.0}
            if any(math.isnan(number) or not 0.0 <= number < 1.0 for number in numbers):
                raise ValueError(f"levels must lie in [0, 1); got {sorted(numbers)}")
            return tuple(sorted(numbers))
        return value
