"""The JSON shapes of the admin routes, from the values they show."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pruning.metrics import wilson_interval
from pruning.variants import Manifest
from service.fleet import CONTROL_ID
from service.operations import Operation, RolloutState
from service.policy import Policy
from service.protocol import Peer, ReplicaReport
from service.tally import Compared, Tally


def operation_document(operation: Operation) -> dict[str, Any]:
    """Return an operation as ``GET /admin/operations/{id}`` shows it."""
    return {
        "id": operation.id,
        "kind": operation.kind.value,
        "phase": operation.phase.value,
        **operation.spec.as_dict(),
        "variant": operation.variant_id,
        "achieved_sparsity": operation.achieved_sparsity,
        "accuracy": operation.accuracy,
        "generation": operation.generation,
        "asked_by": operation.asked_by.value,
        "reason": operation.reason,
        "trial": operation.trial,
        "canary_fraction": operation.canary.fraction if operation.canary else 0.0,
        "error": operation.error,
        "error_type": operation.error_type.value if operation.error_type else None,
        "created_at": _moment(operation.created_at),
        "finished_at": None if operation.finished_at is None else _moment(operation.finished_at),
        "durations_s": {name: round(seconds, 3) for name, seconds in operation.durations_s().items()},
    }


def status_document(
    state: RolloutState,
    committed: Manifest,
    policy: Policy,
    replicas: Iterable[ReplicaReport],
    seen: Tally,
    governor: dict[str, Any] | None,
    cascade: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return what ``GET /admin/sparsity`` shows; ``governor`` and ``cascade`` are documents of their own."""
    evaluation = committed.evaluation
    return {
        "generation": state.generation,
        "variant": committed.variant_id,
        **committed.spec.as_dict(),
        "achieved_sparsity": committed.achieved_sparsity,
        "accuracy": evaluation.accuracy,
        "accuracy_interval": [evaluation.accuracy_low, evaluation.accuracy_high],
        "agreement": evaluation.agreement,
        "online": online_document(seen),
        "accuracy_floor": policy.accuracy_floor,
        "mode": policy.mode.value,
        "governor": governor,
        "cascade": cascade,
        "previous_variant": state.previous.variant_id if state.previous else None,
        "operation": operation_document(state.operation) if state.operation else None,
        "replicas": [
            {"id": report.replica_id, "generation": report.generation, "variant": report.variant_id}
            for report in replicas
        ],
    }


def online_document(seen: Tally) -> dict[str, Any] | None:
    """Return what live traffic says of a variant: beside its frontier row; None where it answered nothing."""
    if not (seen.answered or seen.failed or seen.timed_out or seen.texts):
        return None
    labelled = seen.right / seen.labelled if seen.labelled else None
    return {
        "requests": seen.answered,
        "failed": seen.failed,
        "timed_out": seen.timed_out,
        **_agreement(seen),
        "by_label": _by(seen, lambda one: one.label),
        "by_length": _by(seen, lambda one: one.length),
        "labelled_texts": seen.labelled,
        "accuracy": labelled,
        "accuracy_interval": list(wilson_interval(seen.right, seen.labelled)) if seen.labelled else None,
    }


def _agreement(seen: Tally) -> dict[str, Any]:
    agreement = seen.agreement
    return {
        "texts_compared": seen.texts,
        "agreement": agreement,
        "agreement_interval": None if agreement is None else list(seen.agreement_interval),
        "flip_rate": None if agreement is None else 1.0 - agreement,
        "kl_nats": seen.kl,
    }


def _by(seen: Tally, name: Callable[[Compared], str]) -> dict[str, dict[str, Any]]:
    """Return the agreement within each slice of that name."""
    names = sorted({name(one) for one in seen.compared})
    return {
        chosen: _agreement(replace(seen, compared=tuple(one for one in seen.compared if name(one) == chosen)))
        for chosen in names
    }


def targets_document(peers: Iterable[Peer]) -> list[dict[str, Any]]:
    """Return every metrics page of the service, in the shape of Prometheus HTTP service discovery."""
    return [
        {
            "targets": [peer.metrics_address],
            "labels": {
                "replica": peer.replica_id,
                "deployment": "control" if peer.replica_id == CONTROL_ID else "model",
            },
        }
        for peer in peers
    ]


def _moment(seconds: float) -> str:
    """Return Unix seconds as RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
