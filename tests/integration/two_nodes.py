"""A Ray cluster on one machine, of a head without CPUs and two nodes that compute.

Prints its address, loses the node of the raylet that it is told (``lose PID``) or gets another (``add``), ends with
stdin.
"""

import sys
from typing import Any

from ray.cluster_utils import Cluster

OBJECT_STORE = {"object_store_memory": 100_000_000}


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **OBJECT_STORE})
    for _ in range(2):
        cluster.add_node(num_cpus=2, **OBJECT_STORE)
    print(f"address {cluster.address}", flush=True)
    for line in sys.stdin:
        word, *pids = line.split()
        if word == "lose":
            (node,) = [one for one in cluster.worker_nodes if raylet_of(one) == int(*pids)]
            cluster.remove_node(node, allow_graceful=False)
        else:
            assert word == "add"
            cluster.add_node(num_cpus=2, **OBJECT_STORE)
        print("done", flush=True)
    cluster.shutdown()


def raylet_of(node: Any) -> int:
    (raylet,) = node.all_processes["raylet"]
    return int(raylet.process.pid)


if __name__ == "__main__":
    main()
