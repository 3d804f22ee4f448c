"""What ``serve deploy`` does, without a dashboard: starts Ray and applies every Serve config that stdin brings.

One JSON document a line; each is the whole truth, as with ``serve deploy``. Ends with stdin.
"""

import json
import sys

import ray
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

OBJECT_STORE_BYTES = 200_000_000


def main() -> None:
    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=OBJECT_STORE_BYTES,
        num_cpus=4,
    )
    for line in sys.stdin:
        config = json.loads(line)
        serve.start(http_options=config.pop("http_options"))
        _get_global_client().deploy_apps(ServeDeploySchema(**config))
        print("applied", flush=True)
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
