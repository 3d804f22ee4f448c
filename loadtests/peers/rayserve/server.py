"""The plain Ray Serve example: one deployment, ``@serve.batch``, the default proxy."""

import asyncio
import os
import signal
import threading

import ray
import torch
from classifier import Classifier
from ray import serve
from starlette.requests import Request

CORES = len(os.sched_getaffinity(0))


# Serve lets 5 requests into a replica by default, too few to fill a batch of 32; its own warning says so.
@serve.deployment(max_ongoing_requests=64)
class Sentiment:
    """A batching deployment."""

    def __init__(self, folder: str) -> None:
        """Load the checkpoint; Ray gives an actor one thread of arithmetic, the other servers have them all."""
        torch.set_num_threads(CORES)
        self._classify = Classifier(folder)

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.005)
    async def one(self, texts: list[str]) -> list[dict]:
        """Return one answer for each text of a batch."""
        return self._classify(texts)

    async def __call__(self, request: Request) -> list[dict]:
        """Return the answers for the texts of one request."""
        body = await request.json()
        return await asyncio.gather(*(self.one(text) for text in body["texts"]))


def main() -> None:
    """Serve the checkpoint until told to stop."""
    ray.init(address="local", include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PEER_PORT"])})
    serve.run(Sentiment.bind(os.environ["PEER_MODEL"]), route_prefix="/")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
