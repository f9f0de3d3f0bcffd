"""A real Ray cluster on this machine: several raylets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

MEMORY = 80 << 20
"""Of each node's object store, the least that Ray takes."""


def new_cluster() -> Any:
    """A cluster of one node with one CPU."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": MEMORY}
    return Cluster(initialize_head=True, head_node_args=head)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of two nodes with one CPU each."""
    found = new_cluster()
    try:
        found.add_node(num_cpus=1, object_store_memory=MEMORY)
        yield found.address
    finally:
        found.shutdown()
