"""The door of a host's programs: `python -I -B ROOT/etc/host ROOT command|watch|agent|start`."""

from __future__ import annotations

import sys

from serving.host.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
