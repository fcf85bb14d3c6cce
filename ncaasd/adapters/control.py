"""The daemon's unix socket, which the command line talks to: one JSON request a line, one JSON answer a line."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

from ncaasd.errors import NcaasdError, UserError

LIMIT = 2**20
Handler = Callable[[dict[str, Any]], dict[str, Any]]


def socket_path(state: str) -> str:
    """In the state folder; in the temporary folder, under a hash of that path, where it is too long for a socket (108 bytes)."""
    path = os.path.join(state, "control")
    if len(os.fsencode(path)) < 100:
        return path
    digest = hashlib.sha256(os.fsencode(os.path.abspath(state))).hexdigest()[:16]
    return os.path.join(tempfile.gettempdir(), f"ncaasd-{os.getuid()}-{digest}")


class ControlServer:
    def __init__(self, state: str, handle: Handler) -> None:
        """`handle` is called in a new thread for each request; an NcaasdError that it raises is sent as the answer."""
        self._path = socket_path(state)
        self._handle = handle
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)  # a leftover: the state folder's lock proves that no daemon listens
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        old = os.umask(0o177)
        try:
            self._socket.bind(self._path)
        finally:
            os.umask(old)
        self._socket.listen(8)
        threading.Thread(target=self._serve, name="control", daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                if self._socket.fileno() < 0:
                    return  # closed
                time.sleep(0.2)  # no descriptor is free (F20): the request is answered once there is one
                continue
            threading.Thread(target=self._answer, args=(connection,), name="control-answer", daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, ValueError):
            connection.settimeout(30)
            with connection.makefile("rwb") as stream:
                line = stream.readline(LIMIT)
                if not line:
                    return
                request = json.loads(line)
                try:
                    answer = self._handle(request)
                except NcaasdError as error:
                    answer = {"error": error.message, "hint": error.hint, "user": isinstance(error, UserError)}
                stream.write(json.dumps(answer).encode() + b"\n")

    def close(self) -> None:
        # Close first, so that the thread which the shutdown wakes from `accept` sees it; a duplicate is left to shut down.
        wake = self._socket.dup()
        self._socket.close()
        with wake, contextlib.suppress(OSError):
            wake.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            os.unlink(self._path)


def ask(state: str, request: dict[str, Any], *, timeout: float = 30.0) -> dict[str, Any] | None:
    """The daemon's answer to a request; None when no daemon listens. Raises the error that it answered with."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(timeout)
        try:
            sock.connect(socket_path(state))
        except OSError:
            return None
        with sock.makefile("rwb") as stream:
            stream.write(json.dumps(request).encode() + b"\n")
            stream.flush()
            try:
                answer: dict[str, Any] = json.loads(stream.readline(64 * LIMIT))
            except (ValueError, OSError) as error:
                raise NcaasdError("the daemon did not answer", hint="is it stopping? try again") from error
    if "error" in answer:
        raise (UserError if answer.get("user") else NcaasdError)(answer["error"], hint=answer.get("hint", ""))
    return answer
