"""A Ray cluster of two nodes on one machine: prints its address, loses its second node when told, ends with stdin."""

import sys

from ray.cluster_utils import Cluster

OBJECT_STORE_BYTES = 100_000_000


def main() -> None:
    node = {"num_cpus": 2, "object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    second = cluster.add_node(num_cpus=2, object_store_memory=OBJECT_STORE_BYTES)
    print(f"address {cluster.address}", flush=True)
    for line in sys.stdin:
        assert line == "lose a node\n"
        cluster.remove_node(second, allow_graceful=False)
        print("lost", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
