"""Our signatures are the SDK's, for whatever a request may hold."""

from __future__ import annotations

import datetime
from unittest import mock
from urllib.parse import quote

import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from ncaasd.adapters.s3.signing import UNSIGNED, Keys, Signer

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30)
TOKENS = st.text("ABCxyz019+/=", min_size=1, max_size=60)
NOW = datetime.datetime(2031, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)


def by_the_sdk(keys: Keys, region: str, method: str, url: str, headers: dict[str, str], at: datetime.datetime) -> str:
    request = AWSRequest(method=method, url=url, headers=headers)
    request.context["client_config"] = Config(s3={"payload_signing_enabled": False})
    with mock.patch.object(botocore.auth, "get_current_datetime", lambda: at.replace(tzinfo=None)):
        botocore.auth.S3SigV4Auth(Credentials(*keys), "s3", region).add_auth(request)
    return str(request.headers["Authorization"])


@settings(deadline=None, max_examples=100)
@given(
    key=TEXT,
    upload_id=st.none() | TEXT,
    number=st.integers(1, 10_000),
    token=st.none() | TOKENS,
    etag=st.none() | st.text("0123456789abcdef-", min_size=1),
    later=st.integers(0, 3 * 86_400),
)
def test_the_same_signature_as_the_sdk(key, upload_id, number, token, etag, later):
    keys = Keys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", token)
    path = "/bucket/" + quote(key, safe="/")
    query = f"partNumber={number}&uploadId={quote(upload_id, safe='')}" if upload_id is not None else ""
    extra = {"if-match": f'"{etag}"'} if etag is not None else {"if-none-match": "*"}
    at = NOW + datetime.timedelta(seconds=later)

    headers = {"host": "127.0.0.1:8333", **extra}
    SIGNER.sign(keys, "PUT", path, query, headers, UNSIGNED, at.timestamp())
    url = f"https://127.0.0.1:8333{path}" + (f"?{query}" if query else "")
    assert headers["authorization"] == by_the_sdk(keys, "eu-west-1", "PUT", url, extra, at)


SIGNER = Signer("eu-west-1")  # one for all: the key of the day must not outlive the day, nor the secret


def test_another_secret_on_the_same_day():
    signer = Signer("us-east-1")
    found = []
    for secret in ("one", "two", "one"):
        headers = {"host": "h"}
        signer.sign(Keys("A", secret, None), "GET", "/", "", headers, UNSIGNED, 0.0)
        found.append(headers["authorization"])
    assert found[0] == found[2] != found[1]
