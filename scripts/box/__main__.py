"""`python -m scripts.box up|down|status [--json]|as IDENTITY CMD...` (typed as scripts/site)."""

from __future__ import annotations

import subprocess
import sys

from rich.console import Console

from conf import ConfigError, compose
from conf.site_schema import Site, site_config
from scripts.box.program import Refusal

USAGE = """usage: scripts/site up                   bring the site up, or mend what is missing
       scripts/site down                 stop everything, leave no process behind
       scripts/site status [--json]      every daemon: state, pid, ports, log, health
       scripts/site as IDENTITY CMD...   run CMD as train, release, deploy, host, triton, observe"""


def main(argv: list[str]) -> int:
    """Run one command; returns the exit status: 0 done, 1 not healthy, 2 refused."""
    verb, rest = (argv[0], argv[1:]) if argv else ("", [])
    if verb in ("-h", "--help", "help"):
        print(USAGE)
        return 0
    known = verb == "as" or [verb, *rest] in (["up"], ["down"], ["status"], ["status", "--json"])
    if not known:
        print(USAGE, file=sys.stderr)
        return 2
    try:
        return _run(verb, rest, site_config(compose("site")))
    except (Refusal, ConfigError) as error:
        print(f"scripts/site: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        output = (error.stderr or error.stdout or b"").strip()
        text = output if isinstance(output, str) else output.decode(errors="replace")
        print(f"scripts/site: {' '.join(map(str, error.cmd))} failed: {text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("scripts/site: interrupted; run it again to go on", file=sys.stderr)
        return 130


def _run(verb: str, rest: list[str], site: Site) -> int:
    # Imported here: `as` must start at once and needs nothing of the rest.
    if verb == "as":
        from scripts.box.identity import run_as

        run_as(site, rest[0] if rest else "", rest[1:])
    # In a file or a pipe nothing is folded: lines stay whole for grep.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    if verb == "down":
        from scripts.box.down import down

        down(site, console)
        return 0
    from scripts.box.status import as_json, show, status

    if verb == "up":
        from scripts.box.up import up

        up(site, console)
        console.print(f"up; all state under {site.root}, logs under {site.paths.log}")
        return 0
    daemons = status(site)
    if rest == ["--json"]:
        print(as_json(site, daemons))
    else:
        show(site, daemons, console)
    return 0 if all(daemon.healthy for daemon in daemons) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
