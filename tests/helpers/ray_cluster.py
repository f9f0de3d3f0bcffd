"""A real Ray cluster on this machine: several raylets."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

MEMORY = 80 << 20
"""Of each node's object store, the least that Ray takes."""


def new_cluster(**more: Any) -> Any:
    """A cluster of one node with one CPU."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": MEMORY, **more}
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


@contextlib.contextmanager
def node_in_own_network(name: str, here: str, there: str) -> Iterator[str]:
    """A cluster whose second node is in a network namespace of its own, joined by a pair of virtual interfaces with
    these addresses; its address. Skips where that takes rights."""
    inside = ["ip", "netns", "exec", name]
    steps = [
        ["ip", "netns", "add", name],
        ["ip", "link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b"],
        ["ip", "link", "set", f"{name}b", "netns", name],
        ["ip", "addr", "add", f"{here}/24", "dev", f"{name}a"],
        ["ip", "link", "set", f"{name}a", "up"],
        [*inside, "ip", "addr", "add", f"{there}/24", "dev", f"{name}b"],
        [*inside, "ip", "link", "set", f"{name}b", "up"],
        [*inside, "ip", "link", "set", "lo", "up"],
    ]
    node: subprocess.Popen[bytes] | None = None
    head = None
    try:
        for step in steps:
            try:
                done = subprocess.run(step, capture_output=True, timeout=10)
            except OSError:
                pytest.skip("this system has no `ip`")
            if done.returncode:
                pytest.skip(f"a network namespace takes rights: {done.stderr.decode().strip()}")
        head = new_cluster(node_ip_address=here)
        command = [
            "ray",
            "start",
            "--block",
            f"--address={head.address}",
            f"--node-ip-address={there}",
            "--num-cpus=1",
        ]
        node = subprocess.Popen(
            [*inside, *command, f"--object-store-memory={MEMORY}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert node.stdout is not None
        assert any(b"Ray runtime started" in line for line in node.stdout)
        yield head.address
    finally:
        if node is not None:
            node.terminate()  # `ray start --block` ends what it has started
            node.communicate(timeout=30)
        if head is not None:
            head.shutdown()
        subprocess.run(["ip", "netns", "del", name], capture_output=True)
        subprocess.run(["ip", "link", "del", f"{name}a"], capture_output=True)
