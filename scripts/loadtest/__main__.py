"""Client traffic in small, known amounts: real inference requests through every region's edge.

    python -m scripts.loadtest --model NAME --region us-east,us-west --rate 50 --duration 60

The rate is kept whatever the answers do (open loop): a request that had to wait for a free
connection has waited, and its latency says so. Inputs are the golden examples of the model's
versions in the store, so every answer is compared with what that version must answer. It ends by
itself, or on SIGINT or SIGTERM, and prints what it saw; exit code 1 if any request failed.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict

from conf import ConfigError
from scripts.loadtest.plan import LoadPlan, TrafficError, plan_for
from scripts.loadtest.running import start
from serving.artifact.golden import GoldenError


def main(argv: Sequence[str] | None = None) -> int:
    """Send, print, return 0 if nothing failed, 1 if something did, 2 for a plan out of bounds."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.loadtest",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--region", default="", help="one or several, with commas; default: all")
    parser.add_argument("--rate", type=float, default=LoadPlan.rate, help="requests a second")
    parser.add_argument("--duration", type=float, default=LoadPlan.duration_s, help="seconds")
    parser.add_argument("--concurrency", type=int, default=LoadPlan.concurrency)
    parser.add_argument(
        "--timeout", type=float, default=LoadPlan.timeout_s, help="seconds, per request"
    )
    parser.add_argument("--grpc", action="store_true", help="by gRPC instead of HTTP")
    parser.add_argument("--allow-remote", action="store_true", help="edges off this machine, too")
    parser.add_argument("--json", action="store_true", help="the whole result as one JSON line")
    given = parser.parse_args(argv)
    try:
        plan = plan_for(
            given.model,
            [region for region in given.region.split(",") if region],
            rate=given.rate,
            duration_s=given.duration,
            concurrency=given.concurrency,
            timeout_s=given.timeout,
            grpc=given.grpc,
            allow_remote=given.allow_remote,
        )
    except (TrafficError, GoldenError, ConfigError) as error:
        print(f"traffic: {error}", file=sys.stderr)
        return 2
    ends = (signal.SIGINT, signal.SIGTERM)
    # A signal that comes before its handler waits for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    running = start(plan)
    for number in ends:
        signal.signal(number, lambda *_: running.cut_short())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ends)
    result = running.wait()
    print(json.dumps(asdict(result)) if given.json else result.line(), flush=True)
    return 0 if result.sent and not result.failed else 1


if __name__ == "__main__":
    sys.exit(main())
