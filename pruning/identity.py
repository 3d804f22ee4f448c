"""What makes another variant of a cut: digests of all that its weights and its evaluation depend on."""

from pruning.compensation import COMPENSATION_VERSION
from pruning.curves import CURVES_VERSION
from pruning.errors import RecoveryError
from pruning.files import digest_of
from pruning.imported import IMPORTED_VERSION
from pruning.masks.even import EVEN_VERSION
from pruning.masks.structures import FILL_VERSION, is_coarse
from pruning.quantization import QUANTIZATION_VERSION
from pruning.reconstruction import RECONSTRUCTION_VERSION
from pruning.recovered import RecoveredCut
from pruning.scores import choice_named, scorer_named
from pruning.sequential import SEQUENTIAL_VERSION
from pruning.spec import IMPORTED, Pattern, Precision, PruneSpec, Recover, Scope, Structures
from pruning.unit_curves import UNIT_CURVES_VERSION
from pruning.unit_pass import UNIT_PASS_VERSION
from pruning.workbench import Workbench

ROUNDS_VERSION = 1
"""Raised whenever ``pruning.rounds`` chooses otherwise."""
RECOVERY_VERSIONS: dict[Recover | None, int] = {
    Recover.RECONSTRUCT: RECONSTRUCTION_VERSION,
    Recover.SEQUENTIAL: SEQUENTIAL_VERSION,
}
"""Of structured cuts."""
WEIGHT_RECOVERY_VERSIONS: dict[Recover | None, int] = {
    Recover.RECONSTRUCT: COMPENSATION_VERSION,
    Recover.SEQUENTIAL: SEQUENTIAL_VERSION,
}
"""Of cuts of single weights."""


def recovered_cut(bench: Workbench, spec: PruneSpec) -> RecoveredCut:
    """Return what training made of a cut: by the recipe that was asked for last.

    Raises:
        RecoveryError: it was not trained; the command that does so is named.
        StoreError: what is there is damaged.
    """
    choice_named(spec.scorer)
    found = bench.recovered.chosen(cut_id(bench, spec))
    if found is None:
        way = f"--scorer {spec.scorer} --pattern {spec.pattern}" + (f" --scope {spec.scope}" if spec.scope else "")
        way += "" if spec.structures is Structures.HEADS else f" --structures {spec.structures}"
        way += f" --rounds {spec.rounds}" if spec.rounds > 1 else ""
        raise RecoveryError(
            f"no recovered cut of sparsity {spec.sparsity:g} ({spec.pattern}, {spec.scorer}) in "
            f"{bench.recovered.folder}; it takes minutes of training: run 'sparsedial recover MODEL --sparsity "
            f"{spec.sparsity:g} {way} --rows ROWS' first, with this store"
        )
    return found


def cut_id(bench: Workbench, spec: PruneSpec) -> str:
    """Return the id of the cut that distillation of ``spec`` begins with, whoever judges it."""
    return cut_digest(bench, spec.before_training())


def cut_digest(bench: Workbench, spec: PruneSpec) -> str:
    """Return the digest of all that the float32 weights of a cut depend on."""
    return digest_of({"base": bench.base.digest, "sparsity": spec.sparsity, **cut_identity(bench, spec)})[:16]


def identify(bench: Workbench, spec: PruneSpec) -> str:
    """Return the variant id of ``spec``: a digest of all that its weights and its evaluation depend on."""
    identity: dict[str, object] = {
        "base": bench.base.digest,
        "evaluation": bench.evaluation.digest,
        "sparsity": spec.sparsity,
    }
    if spec.precision is not Precision.FLOAT32:
        identity["precision"] = spec.precision
    if spec.precision is Precision.INT8:
        identity |= {"quantization_version": QUANTIZATION_VERSION, "calibration": bench.key.digest}
    if spec.sparsity > 0.0:
        identity |= cut_identity(bench, spec)
        if spec.recover is Recover.DISTILL:
            identity["recovered"] = recovered_cut(bench, spec).digest
    return digest_of(identity)[:16]


def cut_identity(bench: Workbench, spec: PruneSpec) -> dict[str, object]:
    """Return all that the weights of a cut depend on beside base model, sparsity and precision.

    Raises:
        SpecError: no scorer of that name.
        CacheError: the scope is latency, and none were measured.
    """
    if spec.scorer == IMPORTED:
        return {"pattern": spec.pattern, "imported_version": IMPORTED_VERSION, "recover": spec.recover}
    scorer = scorer_named(spec.scorer)
    versions = RECOVERY_VERSIONS if spec.pattern is Pattern.STRUCTURED else WEIGHT_RECOVERY_VERSIONS
    identity: dict[str, object] = {
        "pattern": spec.pattern,
        "scorer": spec.scorer,
        "recover": spec.recover,
        "calibration": bench.key.digest,
        "scorer_version": scorer.version,
        "curves_version": CURVES_VERSION,
        "reconstruction_version": versions.get(spec.recover),
    }
    coarse = is_coarse(bench.base.shape) or spec.structures is Structures.SUBLAYERS
    if spec.scope is Scope.LATENCY:
        identity |= {"scope": spec.scope, "latencies": bench.latencies.digest, "fill_version": FILL_VERSION}
    elif spec.pattern is Pattern.STRUCTURED and spec.scope is not None:
        identity |= {"scope": spec.scope, "even_version": EVEN_VERSION}
    elif spec.pattern is Pattern.STRUCTURED and coarse:
        identity["fill_version"] = FILL_VERSION
    if spec.structures is not Structures.HEADS:
        identity["structures"] = spec.structures
    if spec.structures is Structures.UNITS:
        identity["unit_versions"] = [UNIT_PASS_VERSION, UNIT_CURVES_VERSION]
    scope = spec.scope or scorer.scope
    if spec.pattern is Pattern.UNSTRUCTURED and scope is not Scope.GLOBAL:
        identity["scope"] = scope
    if spec.rounds > 1:
        identity |= {"rounds": spec.rounds, "rounds_version": ROUNDS_VERSION}
    return identity
