"""Where models, rows, stores and tokens are found."""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pruning.errors import DataError, ModelError, StoreError
from service.settings import Settings

if TYPE_CHECKING:  # it brings torch, which dial and status can do without
    from pruning.encoder import BaseModel

EMBEDDED = Path(__file__).resolve().parent.parent / "embedded"
TOKEN_FILE = "admin.token"


@dataclass(frozen=True, slots=True)
class Sources:
    """Resolved folders and files of one service or one command."""

    model: Path
    train: Path
    evaluation: Path
    store: Path


def resolve(settings: Settings) -> Sources:
    """Return where everything is; a hub model is fetched now if it is not in the local cache.

    Raises:
        ModelError: no such model.
        DataError: labelled rows are needed and not given.
    """
    model = model_dir(settings.model)
    train, evaluation = rows_of(model, settings.train, settings.eval)
    return Sources(model, train, evaluation, settings.store or default_store(_loaded(model)))


def model_dir(name: str) -> Path:
    """Return the folder of ``embedded``, of a local directory or of a hub id.

    Raises:
        ModelError: it is none of these.
    """
    if name == "embedded":
        return EMBEDDED / "model"
    if Path(name).exists() or name.startswith((".", "/", "~")):
        return Path(name).expanduser().resolve()
    return _hub_snapshot(name)


def _hub_snapshot(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt"]))
    except HFValidationError:
        raise ModelError(f"{name!r} is neither a directory here nor a hub id such as 'owner/name'") from None
    except Exception as error:  # the hub client raises errors of several libraries
        raise ModelError(
            f"{name!r} is not a directory here, and the hub gave no model of that id ({type(error).__name__}); "
            "check the path, or download it first"
        ) from error


def rows_of(model: Path, train: Path | None, evaluation: Path | None) -> tuple[Path, Path]:
    """Return the calibration and evaluation rows: those given, or the embedded ones for the embedded model.

    Raises:
        DataError: only one of the two is given, or none and the model is not the embedded one.
    """
    if train is not None and evaluation is not None:
        if train.resolve() == evaluation.resolve():
            raise DataError(f"--train and --eval are the same file, {train}; judge a cut on rows that did not score it")
        return train, evaluation
    if train is None and evaluation is None and model == EMBEDDED / "model":
        return EMBEDDED / "rows" / "calibration.jsonl", EMBEDDED / "rows" / "evaluation.jsonl"
    raise DataError(
        f"{model.name} needs its own labelled rows: give --train F to score it and --eval F to judge its cuts "
        "(JSON Lines, CSV, TSV or Parquet with 'text' and 'label', or what its task has in their place)"
    )


def cache_home() -> Path:
    """Return the folder under the user's cache directory that is ours."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sparsedial"


def default_store(model: "BaseModel") -> Path:
    """Return the store of a model for which none was named: one per model content."""
    name = model.path.parent.name if model.name == "model" else model.name
    return cache_home() / f"{name}-{model.digest[:8]}"


def _loaded(folder: Path) -> "BaseModel":
    from pruning.encoder import load_base_model

    return load_base_model(folder)


def admin_token(settings: Settings, store: Path) -> tuple[str, Path | None]:
    """Return the admin token and the 0600 file that keeps it; made at first start where none is set.

    Raises:
        StoreError: the token cannot be kept, or the file is open to others.
    """
    if settings.admin_token is not None:
        return settings.admin_token.get_secret_value(), None
    path = store / TOKEN_FILE
    try:
        store.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(secrets.token_urlsafe(32))
    except FileExistsError:
        if path.stat().st_mode & 0o077:
            raise StoreError(f"{path} can be read by others; run 'chmod 600 {path}'") from None
    except OSError as error:
        raise StoreError(f"no admin token can be kept in {store}: {error}; choose a writable --store") from error
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} cannot be read: {error}; delete it and start again") from None
    if not token:
        raise StoreError(f"{path} is empty; delete it and start again")
    return token, path
