"""Commands run as another OS user of this machine: by setpriv as root, else by sudo."""

from __future__ import annotations

import os
import pwd

from conf.errors import MISTAKE, LockgateError

#: The whole environment of such a command; nothing of the caller's goes along.
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


class OsUserError(LockgateError, RuntimeError):
    """There is no such user, or it is the caller itself; the message has the config key to set."""

    exit_code = MISTAKE


def as_user(user: str) -> list[str]:
    """The words in front of a command that `user` is to run. Raises OsUserError without that user.

    The user gets no new privileges, no group but its own and no environment of the caller's. sudo
    never waits for a password: what its rules do not allow fails at once.
    """
    try:
        found = pwd.getpwnam(user)
    except KeyError:
        raise OsUserError(
            f"there is no OS user {user!r}: scripts/site up makes the users of conf/site"
        ) from None
    if os.geteuid() == 0:
        ids = [f"--reuid={found.pw_uid}", f"--regid={found.pw_gid}"]
        return ["setpriv", *ids, "--clear-groups", "--no-new-privs", "--"]
    return ["sudo", "-n", "-u", user, "--"]


def refuse_own_user(user: str, key: str, purpose: str) -> None:
    """Raise OsUserError where `user`, set at the config key `key`, is the caller or root.

    `purpose` says in the message what the user is for, as in "runs what a candidate brings".
    """
    as_user(user)
    uid = pwd.getpwnam(user).pw_uid
    if uid in (0, os.geteuid()):
        raise OsUserError(
            f"{key}={user}: {purpose}, so it must be an OS user of its own, neither root nor the "
            f"one that releases. Set it as in {key}=lg-candidate"
        )
