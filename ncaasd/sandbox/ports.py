"""Free ports for a sandbox's server, kept in its folder so that configs stay valid over restarts."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
from collections.abc import Container

from ncaasd.errors import NcaasdError, UserError

HOST = "127.0.0.1"
SERVICES = ("master", "volume", "filer", "s3", "admin")


def choose_ports(path: str, wanted: int | None) -> dict[str, int]:
    """A port for each service, and one for its gRPC (`NAME.grpc`): the one in the file `path` if it is still free, else
    another free one. They are written to that file. `wanted` is the S3 port. Raises UserError when that is in use.
    """
    kept: dict[str, int] = {}
    with contextlib.suppress(FileNotFoundError, ValueError), open(path, encoding="ascii") as file:
        kept = json.load(file)
    if wanted is not None:
        if not _is_free(wanted):
            raise UserError(f"port {wanted} is in use on {HOST}", hint="choose another port for the sandbox")
        kept["s3"] = wanted
    ports: dict[str, int] = {}
    for name in (*SERVICES, *(f"{service}.grpc" for service in SERVICES if service != "admin")):
        port = kept.get(name, 0)
        ports[name] = port if port and _is_free(port) and port not in ports.values() else _free_port(ports.values())
    ports["admin.grpc"] = ports["admin"] + _ABOVE  # its own worker always connects to this one
    with open(path, "w", encoding="ascii") as file:
        json.dump(ports, file)
    return ports


def forget_ports(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


_ABOVE = 10_000


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: a closed connection doesn't count
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _free_port(taken: Container[int]) -> int:
    """A free port below the range that is used for outgoing connections, so that it stays free."""
    for _ in range(200):
        port = random.randrange(12_000, 22_000)
        if port not in taken and _is_free(port) and _is_free(port + _ABOVE):
            return port
    raise NcaasdError(f"no free port between 12000 and 22000 on {HOST}", hint="stop some of what runs there")
