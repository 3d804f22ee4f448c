"""What the commands have in common: their options, how settings come from them, how refusals leave them."""

import difflib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import SecretStr, ValidationError
from typer.core import TyperCommand

from pruning.errors import PruningError, SpecError
from service.admin_client import BAD_INPUT, AdminError
from service.limits import MAX_WAIT_S
from service.settings import ENV_PREFIX, Settings
from service.terminal import print_json, say

Model = Annotated[str, typer.Argument(help="Model directory, hub id, or 'embedded'.", envvar="SPARSEDIAL_MODEL")]
ModelOption = Annotated[
    str, typer.Option("--model", help="Model directory, hub id, or 'embedded'.", envvar="SPARSEDIAL_MODEL")
]
Sparsity = Annotated[
    str, typer.Argument(help="Share of encoder weights to remove: a number in [0, 1).", metavar="SPARSITY")
]
Train = Annotated[
    Path | None,
    typer.Option(help="Labelled rows that score the model: .jsonl, .csv, .tsv, .parquet.", envvar="SPARSEDIAL_TRAIN"),
]
Eval = Annotated[Path | None, typer.Option(help="Other labelled rows that judge its cuts.", envvar="SPARSEDIAL_EVAL")]
Store = Annotated[
    Path | None,
    typer.Option(
        help="Folder of scores and variants. Default: one per model in the user's cache.", envvar="SPARSEDIAL_STORE"
    ),
]
Levels = Annotated[
    str | None,
    typer.Option(
        help="Ladder of sparsities; dense is always in it. [default: 0,0.3,...,0.8]", envvar="SPARSEDIAL_LEVELS"
    ),
]
SCORER_HELP = (
    "Importance scorer: fisher, fisher_block, fisher_label_free, obs, taylor, michel, grain, magnitude, sensitivity, "
    "wanda, cam_cut, cam_cut_shift, smooth_cut, smooth_cut_absolute, smooth_cam_cut, smooth_cam_cut_absolute, seven, "
    "platon, random or imported. Of structured cuts fisher is as good as any to 70 %, obs better at 80 %."
)
PATTERN_HELP = "structured (smaller matrices, faster), unstructured or 2:4 (zeros, not faster)."
Scorer = Annotated[str, typer.Option(help=SCORER_HELP, envvar="SPARSEDIAL_SCORER")]
ScopeOption = Annotated[
    str | None,
    typer.Option(
        "--scope",
        help="Among what scores compete: single weights global, layerwise or row (default: the scorer's own); heads "
        "and neurons layerwise, all layers equally wide, or latency, more where it saves more time on this machine "
        "(default: more where it costs less for each weight).",
    ),
]
PatternOption = Annotated[
    str,
    typer.Option(
        "--pattern",
        help=PATTERN_HELP,
        envvar="SPARSEDIAL_PATTERN",
    ),
]
StructuresOption = Annotated[
    str | None,
    typer.Option(
        "--structures",
        help="What goes, if structured: heads+neurons, heads+units+neurons (dimensions inside heads too) or sublayers "
        "(whole ones, fewer kernels). Default: heads+neurons.",
    ),
]
RecoverOption = Annotated[
    str | None,
    typer.Option(
        "--recover",
        help="reconstruct, sequential (better, slower), none, or distill ('sparsedial recover' trains it first). "
        "Default: reconstruct if structured, none if unstructured.",
    ),
]
RoundsOption = Annotated[
    int,
    typer.Option(
        "--rounds",
        help="Score anew whenever another 1/N of the weights has gone: for deep cuts, minutes each.",
        envvar="SPARSEDIAL_ROUNDS",
    ),
]
PrecisionOption = Annotated[
    str,
    typer.Option(
        "--precision",
        help="float32, bfloat16, int8 (CPUs) or float16 (GPUs): cheaper numbers where the processor multiplies them.",
        envvar="SPARSEDIAL_PRECISION",
    ),
]
PrecisionsOption = Annotated[
    str,
    typer.Option(
        "--precision",
        help="One, or several such as float32,int8; auto: the fastest within 0.5 points of float32, measured here.",
        envvar="SPARSEDIAL_PRECISION",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Url = Annotated[str, typer.Option(help="Address of the service.", envvar="SPARSEDIAL_URL")]
Token = Annotated[
    str | None,
    typer.Option(
        help="Admin token. Default: found for a service of this user and machine.", envvar="SPARSEDIAL_ADMIN_TOKEN"
    ),
]
Wait = Annotated[
    float,
    typer.Option(help="Seconds to wait until the change is committed; 0 only asks for it.", min=0, max=MAX_WAIT_S),
]

_NEGATIVE = re.compile(r"-(\.?\d.*|inf.*|nan)", re.IGNORECASE)
_NOT_SETTINGS = {"SPARSEDIAL_URL"}


class NumberCommand(TyperCommand):
    """Takes ``-1`` for a number, so that it is refused by its range and not as an unknown option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Move negative numbers that are no option's value behind ``--``, then parse."""
        if "--" not in args:
            takers = {flag for option in self.params if not getattr(option, "is_flag", True) for flag in option.opts}
            pairs = zip(["", *args], args, strict=False)
            negative = [_NEGATIVE.fullmatch(arg) and before not in takers for before, arg in pairs]
            numbers = [arg for arg, moves in zip(args, negative, strict=True) if moves]
            args = [arg for arg, moves in zip(args, negative, strict=True) if not moves]
            args += ["--", *numbers] if numbers else []
        return super().parse_args(ctx, args)


def number_of(sparsity: str) -> float:
    """Return a sparsity as it was typed.

    Raises:
        SpecError: it is not a number; its range is checked by ``PruneSpec``.
    """
    try:
        return float(sparsity)
    except ValueError:
        raise SpecError(f"sparsity must be a number in [0, 1); got {sparsity!r}") from None


def settings_of(**given: Any) -> Settings:
    """Return settings from the options that were given; the rest comes from the environment and defaults."""
    _warn_of_misspelt_variables()
    return Settings(**{name: value for name, value in given.items() if value is not None})


def _warn_of_misspelt_variables() -> None:
    """Say which variables of the environment look like a setting and are none."""
    known = {ENV_PREFIX + name.upper() for name in Settings.model_fields} | _NOT_SETTINGS
    for name in sorted(name for name in os.environ if name.startswith(ENV_PREFIX) and name not in known):
        # Without a near name it is somebody else's: Kubernetes sets SPARSEDIAL_SERVICE_HOST for a service so called.
        for meant in difflib.get_close_matches(name, known, n=1, cutoff=0.85):
            say(f"sparsedial: {name} has no effect; did you mean {meant}?", style="yellow")


@contextmanager
def refusals(*, as_json: bool = False) -> Iterator[None]:
    """Turn typed errors into words on stderr and an exit code; with ``as_json``, the service's answer on stdout too."""
    try:
        yield
    except ValidationError as error:
        _refuse(_faults(error), BAD_INPUT)
    except (PruningError, AdminError) as error:
        if isinstance(error, AdminError) and as_json and error.document is not None:
            print_json(error.document)
        _refuse(str(error), error.exit_code if isinstance(error, AdminError) else BAD_INPUT)
    except BrokenPipeError:
        raise
    except OSError as error:
        _refuse(f"{error}; check the file, its folder and the free space there", BAD_INPUT)


def _refuse(words: str, exit_code: int) -> None:
    say(f"sparsedial: {words}", style="red")
    raise typer.Exit(exit_code) from None


def _faults(error: ValidationError) -> str:
    """Return every setting that was refused, with its variable and value, secrets excepted."""
    lines = []
    for fault in error.errors(include_url=False):
        words = fault["msg"].removeprefix("Value error, ")
        if not fault["loc"]:
            lines.append(words)
            continue
        name = str(fault["loc"][0])
        field = Settings.model_fields.get(name)
        is_secret = field is not None and SecretStr in getattr(field.annotation, "__args__", ())
        got = "" if is_secret else f"; got {fault['input']!r}"
        lines.append(f"{name} ({ENV_PREFIX}{name.upper()}): {words}{got}")
    return "\n".join(lines)
