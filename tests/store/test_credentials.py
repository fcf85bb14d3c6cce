"""Credentials as the AWS SDK finds them, per analysis, and as they change while the daemon runs (F53, F54, F56)."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from awscrt.checksums import crc64nvme
from fakes.backends import BUCKET, GROUP, put
from fakes.fault_proxy import FaultProxy, Rule

from ncaasd.adapters.s3.credentials import RENEW_EVERY, CredentialSource, StoreFactory
from ncaasd.adapters.s3.store import S3Store
from ncaasd.errors import BadCredentials, Denied, NoSuchBucket
from ncaasd.sandbox.server import SandboxServer, find_weed

EXPIRED = b"<?xml version='1.0'?><Error><Code>ExpiredToken</Code><Message>so</Message></Error>"


@dataclass
class Aws:
    profile: str | None = None
    region: str | None = "us-east-1"
    endpoint_url: str | None = None


class Monotonic:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def keys(source: CredentialSource) -> tuple[str, str, str | None] | None:
    credentials = source.session().get_credentials()
    if credentials is None:
        return None
    frozen = credentials.get_frozen_credentials()
    return frozen.access_key, frozen.secret_key, frozen.token


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    return tmp_path


def written(path: Path, profile: str, *, key: str, token: str = "") -> None:
    """Replace a credentials file, as a tool that rotates keys does."""
    lines = [f"[{profile}]", f"aws_access_key_id = {key}", f"aws_secret_access_key = secret-of-{key}"]
    new = path.with_suffix(".new")
    new.write_text("\n".join([*lines, *([f"aws_session_token = {token}"] if token else []), ""]))
    new.replace(path)


# -- where they come from


def test_a_profile_s_keys_and_token(home, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ENV")  # the profile that is asked for wins over the environment
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "env")
    written(home / "credentials", "dlc", key="DLC", token="T")
    assert keys(CredentialSource("dlc")) == ("DLC", "secret-of-DLC", "T")


def test_the_environment(home, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "env")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "T")
    written(home / "credentials", "default", key="FILE")
    assert keys(CredentialSource(None)) == ("ENV", "env", "T")


def test_the_default_profile(home):
    written(home / "credentials", "default", key="FILE")
    assert keys(CredentialSource(None)) == ("FILE", "secret-of-FILE", None)


def script(path: Path, key: str) -> str:
    """A credential_process; it counts how often it was asked."""
    path.write_text(
        f"#!{sys.executable}\n"
        f"open({str(path) + '.asked'!r}, 'a').write('.')\n"
        f'print(\'{{"Version": 1, "AccessKeyId": "{key}", "SecretAccessKey": "s", "SessionToken": "t"}}\')\n'
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_credential_process(home, tmp_path):
    (home / "config").write_text(f"[profile sso]\ncredential_process = {script(tmp_path / 'give', 'PROC')}\n")
    source = CredentialSource("sso")
    assert [keys(source) for _ in range(5)] == [("PROC", "s", "t")] * 5
    assert (tmp_path / "give.asked").read_text() == "."


def test_systemd_s_load_credential(home, tmp_path, monkeypatch):
    written(home / "credentials", "default", key="HOME")
    directory = tmp_path / "run"
    directory.mkdir()
    written(directory / "aws-credentials", "default", key="SYSTEMD")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(directory))
    assert keys(CredentialSource(None)) == ("SYSTEMD", "secret-of-SYSTEMD", None)
    (directory / "aws-credentials").unlink()  # a directory with other credentials only
    assert keys(CredentialSource(None)) == ("HOME", "secret-of-HOME", None)


# -- how they change


def test_F54_a_rotated_file_is_used_at_once(home):
    written(home / "credentials", "dlc", key="OLD")
    source = CredentialSource("dlc")
    assert keys(source) == ("OLD", "secret-of-OLD", None)
    before = source.session()
    assert source.session() is before
    written(home / "credentials", "dlc", key="NEW")
    assert keys(source) == ("NEW", "secret-of-NEW", None)


def test_F54_a_file_that_comes_later_and_one_that_goes(home):
    source = CredentialSource(None)
    assert keys(source) is None
    written(home / "credentials", "default", key="FIRST")
    assert keys(source) == ("FIRST", "secret-of-FIRST", None)
    (home / "credentials").unlink()
    assert keys(source) is None


def test_F53_what_was_refused_is_asked_for_again_but_not_in_a_storm(home, tmp_path):
    (home / "config").write_text(f"[profile sso]\ncredential_process = {script(tmp_path / 'give', 'OLD')}\n")
    clock = Monotonic()
    source = CredentialSource("sso", monotonic=clock)
    used = source.session()
    assert keys(source) == ("OLD", "s", "t")
    assert not source.renew(used)  # asked again: the same
    script(tmp_path / "give", "NEW")
    assert not any(source.renew(used) for _ in range(50))  # too soon
    assert (tmp_path / "give.asked").read_text() == ".."
    clock.now += RENEW_EVERY
    assert source.renew(used)
    assert keys(source) == ("NEW", "s", "t")
    assert source.renew(used)  # another thread's request, refused with the old ones: try with the new


def test_a_broken_process_is_no_way_out(home, tmp_path):
    (home / "config").write_text(f"[profile sso]\ncredential_process = {script(tmp_path / 'give', 'OLD')}\n")
    clock = Monotonic()
    source = CredentialSource("sso", monotonic=clock)
    used = source.session()
    assert keys(source) == ("OLD", "s", "t")
    for broken in ("#!/bin/sh\nexit 3\n", "#!/nonexistent/interpreter\n"):
        (tmp_path / "give").write_text(broken)
        clock.now += RENEW_EVERY
        assert not source.renew(used)
        assert source.session() is used


# -- stores made of them


def test_one_store_per_bucket_and_settings_and_one_source_per_profile(home):
    factory = StoreFactory()
    store = factory.store("a", Aws(profile="p"))
    assert factory.store("a", Aws(profile="p")) is store
    others = [
        factory.store("b", Aws(profile="p")),
        factory.store("a", Aws(profile="q")),
        factory.store("a", Aws(profile="p", region="eu-west-1")),
        factory.store("a", Aws(profile="p", endpoint_url="http://127.0.0.1:1")),
        factory.store("a", Aws(profile="p"), unsigned=True),
    ]
    assert len({id(found) for found in [store, *others]}) == 6


@pytest.mark.parametrize(
    ("config", "profile", "said"),
    [
        ("", None, "the default AWS credentials"),
        ("", "nobody", "nobody"),
        ("[profile half]\naws_access_key_id = A\n", "half", "aws_secret_access_key"),
        ("[profile p]\ncredential_process = /bin/false\n", "p", "the AWS profile p"),
        ("[profile p]\ncredential_process = /nonexistent/give-keys\n", "p", "/nonexistent/give-keys"),
        ("[profile p\n", "p", "Unable to parse config file"),
    ],
    ids=["none", "no such profile", "half", "a failing process", "a process that is not there", "broken file"],
)
def test_no_usable_credentials_are_said_in_words(home, config, profile, said):
    (home / "config").write_text(config)
    store = StoreFactory().store("a", Aws(profile=profile, endpoint_url="http://127.0.0.1:1"))
    for act in (lambda: store.list("x/"), lambda: put(store, "x/y", b"")):
        with pytest.raises(BadCredentials) as raised:
            act()
        assert said in str(raised.value)
        assert "LoadCredential" in raised.value.hint


# -- on the real server


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[SandboxServer]:
    """One of its own: its keys are revoked."""
    if find_weed() is None:
        pytest.skip("no SeaweedFS for this platform (extra `sandbox`)")
    folder = tmp_path_factory.mktemp("weed")
    with SandboxServer(
        folder, buckets=[BUCKET], public_buckets=["public-data"], group=GROUP, engine="seaweedfs"
    ) as running:
        yield running


@pytest.fixture
def open_store(server, monkeypatch) -> Callable[..., S3Store]:
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", server.credentials_file)

    def open_store(bucket: str = BUCKET, *, endpoint: str = server.endpoint, unsigned: bool = False) -> S3Store:
        aws = Aws(profile="ncaasd-sandbox", endpoint_url=endpoint)
        return StoreFactory().store(bucket, aws, unsigned=unsigned)

    return open_store


BODY = os.urandom((5 << 20) + 1000)


def test_F53_F54_the_same_upload_goes_on_with_the_rotated_key(server, open_store, unique):
    store = open_store()
    key = f"{GROUP}/configs/{unique}"
    upload_id = store.create_multipart(key)
    first, last = BODY[: 5 << 20], BODY[5 << 20 :]
    parts = [store.put_part(key, upload_id, 1, first, crc=crc64nvme(first))]
    server.revoke_lab_credentials()
    with pytest.raises(BadCredentials) as raised:
        store.put_part(key, upload_id, 2, last, crc=crc64nvme(last))
    assert "does not know the access key of the AWS profile ncaasd-sandbox" in str(raised.value)
    with pytest.raises(BadCredentials):
        store.list(f"{GROUP}/inputs/")
    server.rotate_lab_credentials()
    parts.append(store.put_part(key, upload_id, 2, last, crc=crc64nvme(last)))
    store.complete_multipart(key, upload_id, parts, crc=crc64nvme(BODY), size=len(BODY), only_if_absent=True)
    assert b"".join(store.get(key)) == BODY


def test_F53_an_expired_token_is_said_and_the_next_one_used(server, open_store, unique):
    with FaultProxy(server.endpoint) as proxy:
        store = open_store(endpoint=proxy.endpoint)
        proxy.rules.append(Rule(method="PUT", times=None, status=400, body=EXPIRED))
        for _ in range(3):
            with pytest.raises(BadCredentials, match="has expired"):
                put(store, f"{GROUP}/inputs/{unique}", b"x")
        assert proxy.count("PUT") == 3  # one each: the credentials are no other
        proxy.rules.clear()
        put(store, f"{GROUP}/inputs/{unique}", b"x")


def test_a_public_bucket_is_read_without_credentials(server, open_store):
    admin = server.client(server.admin_credentials)
    admin.put_object(Bucket="public-data", Key="data/a.tif", Body=BODY)
    store = open_store("public-data", unsigned=True)
    assert [info.key for info in store.list("data/").objects] == ["data/a.tif"]
    assert b"".join(store.get("data/a.tif")) == BODY
    with pytest.raises(Denied) as raised:
        put(store, "data/b.tif", b"x")
    assert "no credentials" in raised.value.hint


def test_F56_a_wrong_bucket_or_group_is_refused_and_the_others_go_on(open_store, unique):
    with pytest.raises((NoSuchBucket, Denied)):
        open_store("no-such-analysis").list(f"{GROUP}/inputs/")
    with pytest.raises(Denied):
        open_store().list("another-group/inputs/")
    put(open_store(), f"{GROUP}/inputs/{unique}", b"x", only_if_absent=True)
