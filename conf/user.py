"""Names of this machine's users, also of those that it has no name for."""

from __future__ import annotations

import os
import pwd


def user_name(uid: int | None = None) -> str:
    """Name of the user `uid`, this process's when left out; the number where there is no name.

    A container, or a node whose directory service is away, runs processes of users without a name.
    """
    number = os.getuid() if uid is None else uid
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
