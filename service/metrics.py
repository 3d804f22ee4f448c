"""Every metric of a model replica: name, unit, labels, buckets.

The registry is made in the constructor and never at module level, so that a class which uses it can be pickled and
several replicas can live in one process.
"""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from pruning.variants import Manifest
from service.tally import Compared

PREFIX = "sparsedial"
SECONDS_BUCKETS = (
    *(0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.0075),
    *(0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0),
)
TOKEN_BUCKETS = tuple(float(2**power) for power in range(3, 16))
TEXT_BUCKETS = tuple(float(2**power) for power in range(9))


class ReplicaMetrics:
    """The Prometheus page of one replica."""

    def __init__(self, version: str) -> None:
        """Register everything; gauges of the variant are set by ``set_variant``."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series beside every counter, which nothing reads
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = self._counter("requests", "Requests answered.", "route", "outcome")
        self.request_duration = self._seconds("request_duration", "Arrival to end of the answer.", "route")
        self.stage_duration = self._seconds("stage_duration", "Time that a request spends in a stage.", "stage")
        self.batch_tokens = self._histogram("batch_tokens", "Tokens run together.", TOKEN_BUCKETS)
        self.batch_texts = self._histogram("batch_texts", "Texts run together.", TEXT_BUCKETS)
        self.queue_tokens = self._gauge("queue_tokens", "Tokens that wait.")
        self.queue_limit_tokens = self._gauge("queue_limit_tokens", "Tokens that may wait.")
        self.in_flight = self._gauge("requests_in_flight", "Requests accepted and not yet answered.")
        self.truncated_texts = self._counter("truncated_texts", "Texts cut to the model's positions.")
        self.requested_sparsity = self._gauge("requested_sparsity_ratio", "Sparsity asked for.")
        self.achieved_sparsity = self._gauge("achieved_sparsity_ratio", "Share of prunable weights really removed.")
        self.generation = self._gauge("generation", "Grows by one with every committed swap.")
        self.accuracy = self._gauge("accuracy_ratio", "Accuracy of the live variant on the evaluation rows.")
        self.accuracy_low = self._gauge("accuracy_low_ratio", "Lower end of its 95 % interval.")
        self.accuracy_high = self._gauge("accuracy_high_ratio", "Upper end of its 95 % interval.")
        self.agreement = self._gauge("agreement_ratio", "Share of evaluation rows labelled as the dense model does.")
        self.variant_latency = self._gauge(
            "variant_latency_seconds", "Median time of one text on the CPU, read when built."
        )
        self.variant_rate = self._gauge(
            "variant_items_per_second", "Texts a second in batches on the CPU, read when built."
        )
        self.variant_info = self._gauge(
            "variant_info", "The live variant.", "variant", "pattern", "scorer", "recover", "precision", "engine"
        )
        self.swaps = self._counter("replica_swaps", "Staged variants by what became of them.", "outcome")
        self.stage_variant = self._seconds("replica_stage_duration", "Load and warm-up of a staged variant.")
        self.shadow_texts = self._counter(
            "shadow_texts", "Texts that the dense model answered too.", "sparsity", "outcome"
        )
        self.shadow_label_texts = self._counter(
            "shadow_label_texts", "The same by the label that the variant answered.", "label", "outcome"
        )
        self.shadow_length_texts = self._counter(
            "shadow_length_texts", "The same by length in tokens.", "length", "outcome"
        )
        self.shadow_kl = self._counter("shadow_kl_nats", "Sum of KL(dense || variant) over them.", "sparsity")
        self.cascade_shadow_texts = self._counter(
            "cascade_shadow_texts", "Texts of cascades that the dense model answered too.", "sparsity", "outcome"
        )
        self.shadow_dropped = self._counter("shadow_dropped", "Samples that were not compared.", "reason")
        for reason in ("busy", "failed"):
            self.shadow_dropped.labels(reason)
        self.cascade_texts = self._counter(
            "cascade_texts", "Texts that a cascade answered, by what became of them.", "sparsity", "outcome"
        )
        self.peer_failures = self._counter("metrics_peer_failures", "Peers' pages missing from a merged page.")
        self._variant_labels: tuple[str, ...] | None = None
        self._gauge("build_info", "The running program.", "version").labels(version).set(1)

    def watch(
        self,
        *,
        queue_tokens: Callable[[], float],
        queue_limit_tokens: Callable[[], float],
        in_flight: Callable[[], float],
    ) -> None:
        """Read gauges where they are kept, when the page is asked for."""
        self.queue_tokens.set_function(queue_tokens)
        self.queue_limit_tokens.set_function(queue_limit_tokens)
        self.in_flight.set_function(in_flight)

    def saw_agreement(self, level: str, slices: Iterable[Compared], *, cascaded: bool = False) -> None:
        """Count texts of a level, or of a cascade that begins with it, that the dense model answered too."""
        counter = self.cascade_shadow_texts if cascaded else self.shadow_texts
        for one in slices:
            for outcome, texts in (("agreed", one.agreed), ("flipped", one.texts - one.agreed)):
                counter.labels(level, outcome).inc(texts)
                self.shadow_label_texts.labels(one.label, outcome).inc(texts)
                self.shadow_length_texts.labels(one.length, outcome).inc(texts)
            if not cascaded:
                self.shadow_kl.labels(level).inc(one.kl_sum)

    def saw_cascade(self, level: str, counts: Mapping[str, int]) -> None:
        """Count the texts of a request that a cascade answered, by its level and by what became of them."""
        for outcome, texts in counts.items():
            self.cascade_texts.labels(level, outcome).inc(texts)

    def set_variant(self, manifest: Manifest, generation: int, engine: str) -> None:
        """Show ``manifest`` as the variant that answers, computed by ``engine``, in place of the one before."""
        self.requested_sparsity.set(manifest.spec.sparsity)
        self.achieved_sparsity.set(manifest.achieved_sparsity)
        self.generation.set(generation)
        self.accuracy.set(manifest.evaluation.accuracy)
        self.accuracy_low.set(manifest.evaluation.accuracy_low)
        self.accuracy_high.set(manifest.evaluation.accuracy_high)
        self.agreement.set(manifest.evaluation.agreement)
        self.variant_latency.set(manifest.speed.latency_p50_ms / 1000)
        self.variant_rate.set(manifest.speed.items_per_s)
        spec = manifest.spec
        labels = (manifest.variant_id, str(spec.pattern), spec.scorer, str(spec.recover), str(spec.precision), engine)
        self.variant_info.labels(*labels).set(1)
        if self._variant_labels not in (None, labels):
            self.variant_info.remove(*self._variant_labels)
        self._variant_labels = labels

    def page(self) -> str:
        """Return the page as Prometheus text."""
        return generate_latest(self.registry).decode()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}_{name}_total", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"{PREFIX}_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"{PREFIX}_{name}", text, labels, registry=self.registry, buckets=buckets)

    def _seconds(self, name: str, text: str, *labels: str) -> Histogram:
        return self._histogram(f"{name}_seconds", text, SECONDS_BUCKETS, *labels)
