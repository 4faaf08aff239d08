"""A taken port is one line that names the port, the key to change and the holder."""

from __future__ import annotations

import os
import socket

import pytest

from scripts.box.ports import is_free, refuse_taken
from scripts.box.program import Port, Refusal


def test_a_taken_port_is_refused_by_name_and_holder() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = Port("127.0.0.1", holder.getsockname()[1], "site.ports.prometheus")
        with pytest.raises(Refusal) as refusal:
            refuse_taken([port])
    line = str(refusal.value)
    assert f"127.0.0.1:{port.number}" in line
    assert "site.ports.prometheus" in line
    assert f"pid {os.getpid()}" in line
    assert "\n" not in line


def test_a_holder_of_every_address_holds_ours_too() -> None:
    with socket.socket() as holder:
        holder.bind(("0.0.0.0", 0))
        holder.listen()
        assert not is_free(Port("127.0.0.11", holder.getsockname()[1], "site.ports.ssh"))


def test_a_free_port_is_no_obstacle() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        number = holder.getsockname()[1]
    refuse_taken([Port("127.0.0.1", number, "site.ports.mlflow")])


def test_an_address_that_is_not_this_machines_is_refused() -> None:
    with pytest.raises(Refusal, match=r"cannot listen on 192\.0\.2\.1:2222 \(site\.ports\.ssh\)"):
        refuse_taken([Port("192.0.2.1", 2222, "site.ports.ssh")])
