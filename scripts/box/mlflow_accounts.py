"""Accounts of the MLflow server, written into its own database: run as its user, before it starts.

`python -m scripts.box.mlflow_accounts < JSON`, with `{"database": URI, "accounts": [{"user",
"password", "admin", "grants": {resource type: permission}}]}`: passwords come by standard input,
and MLflow keeps their hashes. Accounts that are not named are left alone: a person may make some.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def main() -> int:
    """Make or mend each account and what it may do. Done twice changes nothing."""
    wanted: dict[str, Any] = json.load(sys.stdin)
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore()
    store.init_db(wanted["database"])
    for account in wanted["accounts"]:
        user, password, admin = account["user"], account["password"], account["admin"]
        if not store.has_user(user):
            store.create_user(user, password, is_admin=admin)
        elif store.get_user(user).is_admin != admin or not store.authenticate_user(user, password):
            store.update_user(user, password=password, is_admin=admin)
        for resource, permission in account["grants"].items():
            store.grant_user_permission(user, resource, "*", permission)
    return 0


if __name__ == "__main__":
    sys.exit(main())
