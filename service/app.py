"""Binds the two Serve applications. The only file where deployments are declared.

``build_control`` and ``build_model`` are also what a Serve config file names as import paths; their arguments are the
fields of ``Settings``.
"""

import logging
import warnings
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, BackpressureConfig

from service.cluster import cluster_gpus
from service.control import Control
from service.engine_choice import require_engine
from service.info import MAX_CONCURRENT_REQUESTS
from service.ladder import Ladder
from service.replica import ModelReplica
from service.settings import Device, Settings
from service.sources import Sources, resolve

logger = logging.getLogger(__name__)

ON_COMPUTING_NODES = {"num_cpus": 0.001}
"""Hardly anything, so that any number finds room; but on a node that offers Ray no CPU, as a head may, none does."""
MEASURED_EVERY_S = 1.0
"""How often a replica tells Serve of its requests in flight, where their number calls for replicas."""

LOGGING = {"enable_access_log": False, "encoding": "TEXT", "log_level": "INFO"}

ControlDeployment = serve.deployment(serve.ingress()(Control))
ModelDeployment = serve.deployment(serve.ingress()(ModelReplica))


def build_control(values: dict[str, Any]) -> Application:
    """Return the control application of the settings in a Serve config file."""
    settings = Settings(**values)
    return control_application(settings, resolve(settings), ladder=None)


def build_model(values: dict[str, Any]) -> Application:
    """Return the model application of the settings in a Serve config file.

    ``device=auto`` is decided here, for Ray has to know what a replica needs: GPUs if the cluster has one by now.
    """
    settings = Settings(**values)
    require_engine(settings.engine)
    gpus = cluster_gpus()
    if settings.device is Device.AUTO and gpus < 1:
        logger.warning(
            "device=auto: the cluster has no GPU at this moment, so the replicas compute on the CPU; "
            "if GPU workers have yet to join, say device: cuda and their replicas wait for them"
        )
    return model_application(
        settings, resolve(settings), num_gpus=settings.gpus_per_replica if settings.wants_gpu(gpus) else 0
    )


def control_application(settings: Settings, sources: Sources, ladder: Ladder | None) -> Application:
    """Return the control application: one replica, no GPU, never two at a time."""
    deployment = ControlDeployment.options(
        name="Control",
        num_replicas=1,
        max_ongoing_requests=10_000,
        max_surge_percent=0,
        health_check_period_s=1,
        graceful_shutdown_timeout_s=5,
        logging_config=LOGGING,
        ray_actor_options=ON_COMPUTING_NODES,
    )
    return deployment.bind(settings, sources, ladder)


def model_application(settings: Settings, sources: Sources, num_gpus: float) -> Application:
    """Return the model application: replicas that own HTTP, tokenizer, batcher and engine."""
    deployment = ModelDeployment.options(
        name="Model",
        num_replicas=settings.replicas if settings.max_replicas is None else None,
        autoscaling_config=None if settings.max_replicas is None else autoscaling(settings),
        max_replicas_per_node=settings.replicas_per_node,
        max_ongoing_requests=MAX_CONCURRENT_REQUESTS,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1),
        max_surge_percent=100,
        health_check_period_s=1,
        graceful_shutdown_timeout_s=settings.drain_timeout_s + 5,
        logging_config=LOGGING,
        ray_actor_options=ON_COMPUTING_NODES | {"num_gpus": num_gpus},
    )
    return deployment.bind(settings, sources)


def autoscaling(settings: Settings) -> AutoscalingConfig:
    """Return how many replicas Serve shall keep between ``replicas`` and ``max_replicas``, by requests in flight."""
    with warnings.catch_warnings():
        # Serve 2.60 calls the interval deprecated, and reads the variable that it names instead nowhere.
        warnings.simplefilter("ignore", DeprecationWarning)
        return AutoscalingConfig(
            min_replicas=settings.replicas,
            max_replicas=settings.most_replicas,
            target_ongoing_requests=settings.target_inflight,
            metrics_interval_s=MEASURED_EVERY_S,
            look_back_period_s=max(2 * MEASURED_EVERY_S, settings.scale_up_s),
            upscale_delay_s=settings.scale_up_s,
            downscale_delay_s=settings.scale_down_s,
        )
