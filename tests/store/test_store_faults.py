"""The network and S3 misbehave between the store and a real S3 server (docs/faults.md: F38, F40 to F49, F84)."""

from __future__ import annotations

import random
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from awscrt.checksums import crc64nvme
from fakes.backends import BUCKET, WAYS, FixedSession, put
from fakes.fault_proxy import FaultProxy, Rule

from ncaasd.adapters.s3 import store as s3
from ncaasd.adapters.s3.answers import multipart_etag
from ncaasd.adapters.s3.errors import WrongRegionError
from ncaasd.adapters.s3.probe import honours_if_none_match
from ncaasd.adapters.s3.store import S3Store
from ncaasd.errors import (
    Absent,
    BadCredentials,
    Busy,
    ClockSkewed,
    Corrupted,
    Denied,
    Exists,
    NoSuchBucket,
    StoreError,
    Throttled,
    Unreachable,
)
from ncaasd.model import Part

PART = 5 << 20
BODY = random.Random(2).randbytes(2 * PART + 1000)
HTML = b"<html><head><title>Guest WLAN</title></head><body>Please log in<br></body></html>"
XHTML = b'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><body><p>Please log in</p></body></html>'


def said(code: str, status: int, more: str = "") -> dict[str, Any]:
    """What a Rule needs to answer as S3 does when it refuses."""
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>so</Message>{more}</Error>'
    return {"status": status, "body": body.encode(), "headers": {"Content-Type": "application/xml"}}


class Waits(list[float]):
    """The waits between tries, not waited."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


both_ways = pytest.mark.parametrize("way", WAYS)


@pytest.fixture
def way() -> str:
    return "fast"


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
def proxy(weed) -> Iterator[FaultProxy]:
    with FaultProxy(weed.endpoint) as running:
        yield running


@pytest.fixture(scope="module")
def lab(weed) -> FixedSession:
    return FixedSession(weed.lab_credentials)


@pytest.fixture
def make(lab, waits, way) -> Callable[..., S3Store]:
    def make(endpoint: str, **options: Any) -> S3Store:
        options = {"read_timeout": 30.0, "connect_timeout": 10.0, "sleep": waits, **options}
        return S3Store(BUCKET, lab, region="us-east-1", endpoint_url=endpoint, requests=WAYS[way], **options)

    return make


@pytest.fixture
def store(make, proxy) -> S3Store:
    return make(proxy.endpoint)


# name -> what happens to a request that carries a body, and what the caller is told when it happens every time
TRANSIENT: dict[str, tuple[dict[str, Any], type[StoreError]]] = {
    "F38 reset in the middle of the body": ({"cut_request": 30_000}, Unreachable),
    "F38 reset before the answer": ({"cut_request": 0}, Unreachable),
    "F38 applied, the answer lost": ({"lose_answer": True}, Unreachable),
    "F38 no answer in time": ({"delay": 2.5, "status": 200}, Unreachable),
    "F38 S3 got nothing for too long": (said("RequestTimeout", 400), Unreachable),
    "F40 SlowDown": (said("SlowDown", 503), Throttled),
    "F40 InternalError": (said("InternalError", 500), Throttled),
    "F40 a bare 500": ({"status": 500}, Throttled),
    "F40 a bare 429": ({"status": 429}, Throttled),
    "F40 a balancer's 503": ({"status": 503, "body": HTML, "headers": {"Content-Type": "text/html"}}, Throttled),
    "F41 a byte flipped on the way": ({"flip_request": 12_345}, Corrupted),
    "F42 a half-open socket, while waiting": ({"hang": True}, Unreachable),
    "F43 a captive portal": ({"status": 200, "body": HTML, "headers": {"Content-Type": "text/html"}}, Unreachable),
    "F43 with an etag of its own": (
        {"status": 200, "body": HTML, "headers": {"Content-Type": "text/html", "ETag": '"5f3-abc"'}},
        Unreachable,
    ),
    "F43 a redirect to a login page": ({"status": 302, "headers": {"Location": "http://127.0.0.1/"}}, Unreachable),
    "F43 a proxy's 403": ({"status": 403, "body": HTML, "headers": {"Content-Type": "text/html"}}, Unreachable),
    "F43 network authentication required": ({"status": 511, "body": HTML}, Unreachable),
}
CASES = [pytest.param(*case, id=name) for name, case in TRANSIENT.items()]


def patient(make: Callable[..., S3Store], proxy: FaultProxy, fault: dict[str, Any]) -> S3Store:
    """A store whose patience ends soon where that is what is tested; others don't mind a machine that is slow now."""
    return make(proxy.endpoint, read_timeout=2.0 if "hang" in fault or "delay" in fault else 30.0)


@both_ways
@pytest.mark.parametrize(("fault", "told"), CASES)
def test_F38_F43_that_part_alone_is_sent_again(make, proxy, unique, fault, told):
    store = patient(make, proxy, fault)
    key = f"lab/configs/{unique}"
    upload_id = store.create_multipart(key)
    proxy.rules.append(Rule(query="partNumber=2", **fault))
    cut = [BODY[:PART], BODY[PART : 2 * PART], BODY[2 * PART :]]
    parts = [store.put_part(key, upload_id, n, body, crc=crc64nvme(body)) for n, body in enumerate(cut, 1)]
    assert [proxy.count("PUT", f"partNumber={n}") for n in (1, 2, 3)] == [1, 2, 1]
    store.complete_multipart(key, upload_id, parts, crc=crc64nvme(BODY), size=len(BODY), only_if_absent=True)
    assert b"".join(store.get(key)) == BODY


@pytest.mark.parametrize(("fault", "told"), CASES)
def test_F38_F43_what_goes_on_is_said_and_no_storm(make, proxy, waits, unique, fault, told):
    store = patient(make, proxy, fault)
    proxy.rules.append(Rule(method="PUT", times=None, **fault))
    with pytest.raises(told) as raised:
        put(store, f"lab/inputs/{unique}", BODY[:100_000])
    assert type(raised.value) is told and raised.value.transient
    assert f"{BUCKET}/lab/inputs/{unique}" in raised.value.message
    assert proxy.count("PUT") == 3
    assert len(waits) == 2 and 0 < waits[0] < waits[1] <= s3.LONGEST_WAIT


@pytest.mark.parametrize(("fault", "told"), CASES)
def test_without_retry_one_request_is_sent_whatever_happens(make, proxy, waits, unique, fault, told):
    store = patient(make, proxy, fault)
    proxy.rules.append(Rule(method="PUT", times=1, **fault))
    with pytest.raises(told):
        put(store, f"lab/submissions/{unique}-submit.json", BODY[:100_000], only_if_absent=True, retry=False)
    assert (proxy.count("PUT"), len(waits)) == (1, 0)


def test_a_retried_put_meets_its_own_success(store, proxy, unique):
    """Why a submit is sent with retry=False, and why the caller of others adopts what is equal."""
    proxy.rules.append(Rule(method="PUT", lose_answer=True))
    with pytest.raises(Exists):
        put(store, f"lab/configs/{unique}", b"mine", only_if_absent=True)
    assert store.read(f"lab/configs/{unique}", limit=10)[0] == b"mine"


def test_F39_after_an_outage_the_same_store_goes_on(store, proxy, waits, unique):
    proxy.rules.append(Rule(cut_request=0, times=None))
    for _ in range(20):
        with pytest.raises(Unreachable):
            put(store, f"lab/inputs/{unique}", b"x", only_if_absent=True)
    assert len(proxy.seen) == 60 and max(waits) <= s3.LONGEST_WAIT
    proxy.rules.clear()
    put(store, f"lab/inputs/{unique}", b"x", only_if_absent=True)


def test_F51_a_server_that_ignores_if_none_match_is_found_out(make, moto_endpoint, unique):
    """moto verifies no signature, so that a header can be lost on the way to it."""
    with FaultProxy(moto_endpoint) as proxy:
        store = make(proxy.endpoint)
        assert honours_if_none_match(store, f"lab/submissions/.ncaasd/{unique}")
        proxy.rules.append(Rule(method="PUT", times=None, drop_header="if-none-match"))
        assert not honours_if_none_match(store, f"lab/submissions/.ncaasd/{unique}")


def test_an_idle_connection_that_the_server_closed_is_no_fault(store, proxy, unique):
    proxy.rules.append(Rule(method="GET", query="list-type", cut_response=10_000))  # answers whole, then closes
    store.list(f"lab/inputs/{unique}")
    time.sleep(0.05)
    put(store, f"lab/inputs/{unique}", b"x", only_if_absent=True, retry=False)
    assert proxy.count("PUT") == 1


# -- F42


@both_ways
def test_F42_a_half_open_socket_while_sending_is_given_up(make, proxy, unique):
    store = make(proxy.endpoint, read_timeout=1.0, connect_timeout=1.0)
    proxy.rules.append(Rule(method="PUT", stall_after=10_000))
    big = bytes(32 << 20)  # more than the kernel buffers
    started = time.monotonic()
    with pytest.raises(Unreachable):
        put(store, f"lab/inputs/{unique}", big, retry=False)
    assert time.monotonic() - started < 20


@both_ways
def test_F42_a_half_open_socket_while_reading_is_given_up(make, proxy, weed_backend, unique):
    store = make(proxy.endpoint, read_timeout=1.0)
    weed_backend.seed(f"lab/results/{unique}", BODY)
    proxy.rules.append(Rule(method="GET", throttle=5000))  # a block takes 3 s, the store waits 1 s
    started = time.monotonic()
    with pytest.raises(Unreachable):
        list(store.get(f"lab/results/{unique}"))
    assert time.monotonic() - started < 20


def test_F42_the_production_timeouts_are_within_a_minute():
    assert s3.CONNECT_TIMEOUT + s3.READ_TIMEOUT < 60


@pytest.mark.alone
def test_a_slow_line_is_no_fault(make, proxy, unique):
    """The timeouts are for silence: a body that takes longer than they are, but moves, arrives."""
    slow = make(proxy.endpoint, read_timeout=2.0)
    proxy.rules.append(Rule(method="PUT", throttle=3 << 20))
    body = BODY + bytes(5 << 20)  # 5 s; of it, 1.5 s are in the kernel's buffers when the last byte is handed over
    put(slow, f"lab/inputs/{unique}", body, retry=False)
    assert proxy.received("PUT") == len(body)


# -- F43: nothing a portal says is taken for S3's word

OPERATIONS: dict[str, Callable[[S3Store], object]] = {
    "list": lambda store: store.list("lab/inputs/"),
    "find": lambda store: store.find("lab/inputs/a"),
    "put": lambda store: put(store, "lab/inputs/a", b"x"),
    "create_multipart": lambda store: store.create_multipart("lab/inputs/a"),
    "put_part": lambda store: store.put_part("lab/inputs/a", "u", 1, b"x", crc=crc64nvme(b"x")),
    "complete_multipart": lambda store: store.complete_multipart(
        "lab/inputs/a", "u", [Part(1, 1, "0" * 32, 0)], crc=0, size=1, only_if_absent=True
    ),
    "get": lambda store: list(store.get("lab/results/a")),
    "get a range": lambda store: list(store.get("lab/results/a", start=5, length=len(HTML))),
    "get with If-Match": lambda store: list(store.get("lab/results/a", etag="0" * 32)),
    "read": lambda store: store.read("lab/results/a", limit=1000),
    "checksum": lambda store: store.checksum("lab/results/a", etag="0" * 32),
    "delete": lambda store: store.delete("lab/inputs/a"),
}
PORTALS: dict[str, dict[str, Any]] = {
    "html": {"status": 200, "body": HTML, "headers": {"Content-Type": "text/html"}},
    "xhtml": {"status": 200, "body": XHTML, "headers": {"Content-Type": "text/html"}},
    "empty": {"status": 200},
    "redirect": {"status": 302, "headers": {"Location": "http://127.0.0.1/login"}},
    "404": {"status": 404, "body": HTML, "headers": {"Content-Type": "text/html"}},
}


@both_ways
@pytest.mark.parametrize("portal", PORTALS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_F43_a_captive_portal_is_never_a_success(make, proxy, operation, portal):
    if (operation, portal) == ("checksum", "404"):
        pytest.skip("an answer to HEAD has no body that could tell a portal's 404 from S3's")
    proxy.rules.append(Rule(times=None, **PORTALS[portal]))
    with pytest.raises(Unreachable) as raised:
        OPERATIONS[operation](make(proxy.endpoint, attempts=1))
    assert "not S3" in str(raised.value) and raised.value.transient


# -- F44


@pytest.fixture
def tls_proxy(weed, certificate) -> Iterator[FaultProxy]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with FaultProxy(weed.endpoint, tls=context) as running:
        yield running


@both_ways
def test_F44_an_untrusted_certificate_is_refused_and_nothing_is_sent(make, tls_proxy, unique):
    with pytest.raises(Unreachable) as raised:
        put(make(tls_proxy.endpoint), f"lab/inputs/{unique}", b"secret")
    assert "TLS" in str(raised.value) and "AWS_CA_BUNDLE" in raised.value.hint
    assert tls_proxy.seen == []


def test_F44_a_server_without_tls_gets_nothing(make, proxy, unique):
    with pytest.raises(Unreachable):
        put(make(proxy.endpoint.replace("http:", "https:")), f"lab/inputs/{unique}", b"secret")
    assert proxy.seen == []


@both_ways
def test_F44_a_lab_s_own_ca_is_trusted_when_it_is_named(make, tls_proxy, certificate, monkeypatch, unique):
    monkeypatch.setenv("AWS_CA_BUNDLE", certificate[0])
    store = make(tls_proxy.endpoint)
    put(store, f"lab/configs/{unique}", BODY, only_if_absent=True)
    assert b"".join(store.get(f"lab/configs/{unique}")) == BODY
    assert store.find(f"lab/configs/{unique}").size == len(BODY)
    sent = [seen for seen in tls_proxy.seen if seen.method == "PUT"]
    assert [seen.headers["x-amz-content-sha256"] for seen in sent] == ["UNSIGNED-PAYLOAD"]


# -- F45 to F49


def test_F46_a_conflict_is_the_callers_to_look_at(store, proxy, unique):
    proxy.rules.append(Rule(method="PUT", times=None, **said("ConditionalRequestConflict", 409)))
    with pytest.raises(Busy):
        put(store, f"lab/submissions/{unique}-submit.json", b"{}", only_if_absent=True)
    assert proxy.count("PUT") == 1


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (said("InternalError", 200)["body"], Throttled),
        (b"<?xml version='1.0'?>\n  \n  \n" + said("InternalError", 200)["body"].split(b"\n")[1], Throttled),
        (said("AccessDenied", 200)["body"], Denied),
        (b"", Unreachable),
    ],
)
def test_F47_a_200_that_carries_an_error_is_a_failure(store, proxy, unique, body, told):
    key = f"lab/inputs/{unique}"
    upload_id = store.create_multipart(key)
    parts = [store.put_part(key, upload_id, 1, b"x", crc=crc64nvme(b"x"))]
    proxy.rules.append(Rule(method="POST", query="uploadId", times=3, status=200, body=body))
    with pytest.raises(told):
        store.complete_multipart(key, upload_id, parts, crc=crc64nvme(b"x"), size=1, only_if_absent=True)
    proxy.rules.clear()
    assert store.find(key) is None
    store.complete_multipart(key, upload_id, parts, crc=crc64nvme(b"x"), size=1, only_if_absent=True)


def test_F47_an_object_made_of_other_parts_is_a_failure(make, proxy, unique):
    store = make(proxy.endpoint, attempts=1)
    key = f"lab/inputs/{unique}"
    upload_id = store.create_multipart(key)
    parts = [store.put_part(key, upload_id, 1, b"x", crc=crc64nvme(b"x"))]

    def other(headers: dict[str, str], body: bytes) -> tuple[dict[str, str], bytes]:
        changed = body.replace(multipart_etag(parts).encode(), b"0" * 32 + b"-1")
        assert changed != body
        return headers, changed

    proxy.rules.append(Rule(method="POST", query="uploadId", edit_response=other))
    with pytest.raises(Corrupted):
        store.complete_multipart(key, upload_id, parts, crc=crc64nvme(b"x"), size=1, only_if_absent=True)


@both_ways
def test_F49_an_upload_takes_put_and_list_only(store, proxy, unique):
    key = f"lab/inputs/{unique}"
    upload_id = store.create_multipart(key)
    parts = [store.put_part(key, upload_id, 1, b"x", crc=crc64nvme(b"x"))]
    store.complete_multipart(key, upload_id, parts, crc=crc64nvme(b"x"), size=1, only_if_absent=True)
    put(store, key + "2", b"x", only_if_absent=True)
    assert store.find(key) and store.list(key)
    assert [(seen.method, seen.path.rstrip("/").count("/")) for seen in proxy.seen] == [
        ("POST", 4),  # create
        ("PUT", 4),
        ("POST", 4),  # complete
        ("PUT", 4),
        ("GET", 1),  # the bucket: a listing
        ("GET", 1),
    ]
    assert not any("expect" in seen.headers for seen in proxy.seen)


# -- downloads


@both_ways
@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ({"cut_response": 3_000_000}, (Corrupted,)),
        ({"reset_response": 3_000_000}, (Corrupted, Unreachable)),
        ({"flip_response": 4_000_000}, (Corrupted,)),
    ],
    ids=["F38 cut", "F38 reset", "F41 flipped"],
)
def test_F38_F41_a_download_that_breaks_is_no_success(store, proxy, weed_backend, unique, fault, told):
    key = f"lab/configs/{unique}"
    put(store, key, BODY)
    proxy.rules.append(Rule(method="GET", **fault))
    with pytest.raises(told) as raised:
        list(store.get(key))
    assert raised.value.transient
    assert b"".join(store.get(key)) == BODY


# -- refusals that only a person can mend: one request, a sentence, what to do


@pytest.mark.parametrize(
    ("answer", "told", "sentence", "hint"),
    [
        (said("AccessDenied", 403), Denied, f"s3:PutObject on {BUCKET}/lab/inputs/a is denied", "policy"),
        (said("NoSuchBucket", 404), NoSuchBucket, f"there is no bucket {BUCKET}", "analysis"),
        (said("ExpiredToken", 400), BadCredentials, "the session token of the test's key has expired", "log in"),
        (said("InvalidAccessKeyId", 403), BadCredentials, "S3 does not know the access key of the test's key", ""),
        (said("SignatureDoesNotMatch", 403), BadCredentials, "the secret key of the test's key does not fit", ""),
        (
            said(
                "RequestTimeTooSkewed",
                403,
                "<RequestTime>20350101T000000Z</RequestTime><ServerTime>2026-01-01T00:00:00Z</ServerTime>",
            ),
            ClockSkewed,
            "this machine's clock is wrong, so S3 refuses what it signs (it says 20350101T000000Z, S3 says 2026-01-01",
            "NTP",
        ),
        (said("EntityTooLarge", 400), StoreError, f"s3:PutObject on {BUCKET}/lab/inputs/a failed: EntityTooLarge", ""),
    ],
    ids=["F55", "F56", "F53", "revoked", "typo", "F84", "other"],
)
def test_F55_F84_a_refusal_is_said_once_in_plain_words(store, proxy, answer, told, sentence, hint):
    proxy.rules.append(Rule(method="PUT", times=None, **answer))
    with pytest.raises(StoreError) as raised:
        put(store, "lab/inputs/a", b"x")
    assert type(raised.value) is told and not raised.value.transient
    assert raised.value.message.startswith(sentence)
    assert hint in raised.value.hint
    assert proxy.count("PUT") == 1


@pytest.mark.parametrize("wrong", [3600, -3600])
def test_F84_a_clock_that_is_wrong_is_said_by_the_server_itself(make, proxy, unique, wrong):
    store = make(proxy.endpoint, now=lambda: time.time() + wrong)
    for act in (lambda: store.list(f"lab/inputs/{unique}"), lambda: put(store, f"lab/inputs/{unique}", b"x")):
        with pytest.raises(ClockSkewed, match="this machine's clock is wrong") as raised:
            act()
        assert "S3 says" in raised.value.message
    assert len(proxy.seen) == 2


def test_what_is_denied_because_it_is_not_there_is_absent(make, proxy, weed_backend, unique):
    """AWS answers 403 for a missing key to who may not list the whole bucket; SeaweedFS answers 404."""
    store = make(proxy.endpoint)
    weed_backend.seed(f"lab/results/{unique}/there", b"x")
    proxy.rules.append(Rule(method="GET", path="/results/", times=None, **said("AccessDenied", 403)))
    with pytest.raises(Absent):
        store.read(f"lab/results/{unique}/not-there", limit=10)
    with pytest.raises(Denied):
        store.read(f"lab/results/{unique}/there", limit=10)


@pytest.mark.parametrize(
    "answer",
    [
        said("AuthorizationHeaderMalformed", 400, "<Region>eu-west-1</Region>"),
        {**said("PermanentRedirect", 301), "headers": {"x-amz-bucket-region": "eu-west-1"}},
    ],
)
def test_a_bucket_in_another_region_is_gone_to(store, proxy, unique, answer):
    proxy.rules.append(Rule(method="PUT", **answer))
    put(store, f"lab/inputs/{unique}", b"x", only_if_absent=True)
    put(store, f"lab/inputs/{unique}2", b"x", only_if_absent=True)
    regions = [seen.headers["authorization"].split("/")[2] for seen in proxy.seen]
    assert regions == ["us-east-1", "eu-west-1", "eu-west-1"]


def test_a_bucket_whose_region_is_not_said(store, proxy, unique):
    proxy.rules.append(Rule(method="PUT", times=None, **said("PermanentRedirect", 301)))
    with pytest.raises(WrongRegionError) as raised:
        put(store, f"lab/inputs/{unique}", b"x", only_if_absent=True)
    assert "aws.region" in raised.value.hint
    assert proxy.count("PUT") == 1


def test_a_server_that_is_not_there(make, waits):
    with pytest.raises(Unreachable) as raised:
        make("http://127.0.0.1:1").list("lab/inputs/")
    assert "endpoint_url" in raised.value.hint
    assert len(waits) == 2
