"""Binds the two Serve applications. The only file where deployments are declared.

``build_control`` and ``build_model`` are also what a Serve config file names as import paths; their arguments are the
fields of ``Settings``.
"""

import logging
import os
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import BackpressureConfig

from service.cluster import cluster_gpus
from service.control import Control
from service.engine_choice import require_engine
from service.info import MAX_CONCURRENT_REQUESTS
from service.ladder import Ladder
from service.replica import ModelReplica
from service.settings import Device, Settings
from service.sources import Sources, resolve

logger = logging.getLogger(__name__)

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
        ray_actor_options={"num_cpus": 0},
    )
    return deployment.bind(settings, sources, _cores(), ladder)


def model_application(settings: Settings, sources: Sources, num_gpus: float) -> Application:
    """Return the model application: replicas that own HTTP, tokenizer, batcher and engine."""
    deployment = ModelDeployment.options(
        name="Model",
        num_replicas=settings.replicas,
        max_ongoing_requests=MAX_CONCURRENT_REQUESTS,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1),
        max_surge_percent=100,
        health_check_period_s=1,
        graceful_shutdown_timeout_s=settings.drain_timeout_s + 5,
        logging_config=LOGGING,
        ray_actor_options={"num_cpus": 0, "num_gpus": num_gpus},
    )
    threads = settings.threads or max(1, _cores() // settings.replicas)
    return deployment.bind(settings, sources, threads)


def _cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0))
