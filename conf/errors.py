"""The one root of Lockgate's errors, and the exit codes of `lockgate` and `fab`.

An error's text is a sentence for the person at the keyboard; its class says how the command ends.
"""

from __future__ import annotations

DONE = 0  # done, or nothing had to be done
FAILED = 1  # it failed; what was there before is as it was
MISTAKE = 2  # a mistake on the command line or in a config file; nothing was changed
INCOMPLETE = 3  # done or undone in part only; the text names what a person has to mend
REFUSED = 4  # a gate, a signature or a check refused it; nothing was changed
UNREACHABLE = 5  # a part of the site does not answer
INTERRUPTED = 130  # Ctrl-C


class LockgateError(Exception):
    """Root of every error that a command turns into one sentence and `exit_code`."""

    exit_code = FAILED


class ConfigError(LockgateError, ValueError):
    """An override or a config file is wrong; the message has the place and the nearest names."""

    exit_code = MISTAKE
