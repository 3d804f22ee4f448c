"""What the workers of a training are told. Light: several processes of Ray Train read it that do not train."""

from dataclasses import dataclass
from pathlib import Path

from pruning.recovery.recipe import Recipe
from pruning.spec import PruneSpec
from service.sources import Sources


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What every worker is to do. Model, rows and store are paths: each worker reads them by itself."""

    sources: Sources
    rows: Path
    """Training rows."""
    spec: PruneSpec
    recipe: Recipe
    cut_name: str
    recipe_id: str
    """What the command has found cut and recipe with these rows to be."""
