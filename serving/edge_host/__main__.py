"""The door of an edge's programs: `python -I -B ETC/edge ETC/edge.json`."""

from __future__ import annotations

import sys

from serving.edge_host.session import serve_controller

if __name__ == "__main__":
    sys.exit(serve_controller(sys.argv[1:]))
