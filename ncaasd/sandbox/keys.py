"""The access keys of a sandbox: random, made once per folder, kept where the AWS tools can read them."""

from __future__ import annotations

import configparser
import os
import secrets

from ncaasd.sandbox.policy import Credentials

LAB_PROFILE = "ncaasd-sandbox"
ADMIN_PROFILE = "ncaasd-sandbox-admin"


class KeyFile:
    """An AWS shared-credentials file with the lab's and the admin's key, as two profiles (mode 0600)."""

    def __init__(self, path: str) -> None:
        self.path = path

    @property
    def lab(self) -> Credentials:
        return self._read(LAB_PROFILE)

    @property
    def admin(self) -> Credentials:
        return self._read(ADMIN_PROFILE)

    def make(self) -> None:
        """Make new keys if there are none yet."""
        if not os.path.exists(self.path):
            self._write(_new_key("ADMIN"), _new_key("LAB"))

    def rotate_lab(self) -> None:
        """Replace the lab's key by a new one."""
        self._write(self.admin, _new_key("LAB"))

    def _read(self, profile: str) -> Credentials:
        parser = configparser.RawConfigParser()
        with open(self.path, encoding="utf-8") as file:
            parser.read_file(file)
        return Credentials(parser[profile]["aws_access_key_id"], parser[profile]["aws_secret_access_key"])

    def _write(self, admin: Credentials, lab: Credentials) -> None:
        profiles = "\n".join(
            f"[{name}]\naws_access_key_id = {key.access_key}\naws_secret_access_key = {key.secret_key}\n"
            for name, key in ((LAB_PROFILE, lab), (ADMIN_PROFILE, admin))
        )
        write_private(self.path, f"# Keys of the ncaasd sandbox in this folder; good for nothing else.\n{profiles}")


def write_private(path: str, text: str) -> None:
    """Write a file as a whole or not at all, readable only by its owner from the first byte on."""
    temporary = f"{path}.new"
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)


def _new_key(kind: str) -> Credentials:
    return Credentials(f"SANDBOX{kind}{secrets.token_hex(6).upper()}", secrets.token_urlsafe(30))
