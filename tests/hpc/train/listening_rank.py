"""One rank: joins the job, prints where it listens as JSON, and leaves when all have."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch

from hpc.train import distributed

LISTEN = "0A"  # proc(5), /proc/net/tcp


def listening_addresses() -> list[str]:
    """`address:port`, in the hexadecimal form of /proc, of this process's listening sockets."""
    own = {os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_socket()}  # noqa: PTH115
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/self/net", table).read_text().split("\n")[1:-1]:
            fields = line.split()
            if fields[3] == LISTEN and f"socket:[{fields[9]}]" in own:
                found.append(fields[1])
    return found


def main() -> None:
    with distributed.join() as world:
        assert world.total([1.0]) == [2.0]
        pair = torch.distributed.new_group(backend="gloo")  # as a library may make one more
        torch.distributed.barrier(pair)
        print("LISTENS", json.dumps(listening_addresses()), flush=True)
        world.barrier()
    os._exit(0)  # as `hpc.jobs.rank.entry` does: gloo's threads outlive the group


if __name__ == "__main__":
    main()
