"""The sandbox's S3 server: the real SeaweedFS, with NeuroCAAS's permissions; and moto where there is none."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from ncaasd.errors import NcaasdError, UserError
from ncaasd.sandbox.server import SandboxServer, s3_client

needs_weed = pytest.mark.usefixtures("weed_binary")

BUCKET = "demo-analysis"


def answer(call: Callable[..., dict[str, Any]], **arguments: Any) -> int:
    """The HTTP status of a request."""
    try:
        return int(call(**arguments)["ResponseMetadata"]["HTTPStatusCode"])
    except ClientError as error:
        return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


@pytest.fixture(scope="module")
def lab(server: SandboxServer) -> Any:
    admin = server.client(server.admin_credentials)
    for area in ("inputs", "configs", "submissions", "results"):
        admin.put_object(Bucket=BUCKET, Key=f"lab/{area}/there", Body=b"x")
    return server.client(server.lab_credentials)


# One row per cell of the permissions' table (docs/neurocaas.md): the request, and for each area whether it is allowed.
AREAS = ("inputs", "configs", "submissions", "results")
CELLS: list[tuple[str, dict[str, Any], tuple[bool, bool, bool, bool]]] = [
    ("put_object", {"Key": "lab/{area}/new", "Body": b"1"}, (True, True, True, False)),
    ("create_multipart_upload", {"Key": "lab/{area}/big"}, (True, True, True, False)),
    ("get_object", {"Key": "lab/{area}/there"}, (False, True, False, True)),
    ("head_object", {"Key": "lab/{area}/there"}, (False, True, False, True)),
    ("delete_object", {"Key": "lab/{area}/gone"}, (True, True, True, True)),
    ("list_objects_v2", {"Prefix": "lab/{area}/"}, (True, True, True, True)),
    ("list_objects_v2", {"Prefix": "lab/{area}/th"}, (True, True, True, True)),
    ("list_objects_v2", {"Prefix": "lab/{area}/", "Delimiter": "/"}, (True, True, True, True)),
]


@needs_weed
@pytest.mark.parametrize(
    ("request_name", "arguments", "area", "allowed"),
    [
        pytest.param(name, arguments, area, allowed, id=f"{name}-{area}-{number}")
        for number, (name, arguments, row) in enumerate(CELLS)
        for area, allowed in zip(AREAS, row, strict=True)
    ],
)
def test_permissions_by_area(lab: Any, request_name: str, arguments: dict[str, Any], area: str, allowed: bool) -> None:
    filled = {name: value.format(area=area) if isinstance(value, str) else value for name, value in arguments.items()}
    status = answer(getattr(lab, request_name), Bucket=BUCKET, **filled)
    assert status == 403 if not allowed else status in (200, 204)


@needs_weed
@pytest.mark.parametrize(
    ("request_name", "arguments"),
    [
        ("head_bucket", {}),
        ("list_objects_v2", {}),
        ("list_objects_v2", {"Delimiter": "/"}),
        ("list_objects_v2", {"Prefix": "lab/"}),
        ("list_objects_v2", {"Prefix": "lab/inputs"}),
        ("list_objects_v2", {"Prefix": "other/inputs/"}),
        ("list_object_versions", {"Prefix": "lab/inputs/"}),
        ("list_multipart_uploads", {}),
        ("put_object", {"Key": "other/inputs/a", "Body": b"1"}),
        ("put_object", {"Key": "lab/elsewhere/a", "Body": b"1"}),
        ("put_object", {"Key": "logs/active/a", "Body": b"1"}),
        ("put_object", {"Key": "lab/inputs/a", "Body": b"1", "ACL": "private"}),
        ("put_object", {"Key": "lab/inputs/a", "Body": b"1", "Tagging": "a=b"}),
        ("create_multipart_upload", {"Key": "lab/inputs/a", "ACL": "private"}),
        ("create_multipart_upload", {"Key": "lab/inputs/a", "Tagging": "a=b"}),
        ("copy_object", {"Key": "lab/inputs/copy", "CopySource": f"{BUCKET}/lab/configs/there"}),
        ("get_object", {"Key": "logs/active/a"}),
        ("get_object_acl", {"Key": "lab/configs/there"}),
        ("put_object_tagging", {"Key": "lab/inputs/there", "Tagging": {"TagSet": []}}),
    ],
)
def test_denied_everywhere(lab: Any, request_name: str, arguments: dict[str, Any]) -> None:
    assert answer(getattr(lab, request_name), Bucket=BUCKET, **arguments) == 403


@needs_weed
def test_the_group_itself_only_with_a_delimiter(lab: Any) -> None:
    found = lab.list_objects_v2(Bucket=BUCKET, Prefix="lab/", Delimiter="/")
    assert [area["Prefix"] for area in found["CommonPrefixes"]] == [f"lab/{area}/" for area in sorted(AREAS)]


@needs_weed
def test_multipart_completes_without_listing_or_aborting(lab: Any, server: SandboxServer) -> None:
    name = {"Bucket": BUCKET, "Key": "lab/inputs/multipart"}
    upload = {**name, "UploadId": lab.create_multipart_upload(**name)["UploadId"]}
    part = lab.upload_part(**upload, PartNumber=1, Body=b"z" * (5 << 20))
    assert answer(lab.list_parts, **upload) == 403
    assert answer(lab.abort_multipart_upload, **upload) == 403
    assert answer(lab.upload_part_copy, **upload, PartNumber=2, CopySource=f"{BUCKET}/lab/configs/there") == 403
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    assert answer(lab.complete_multipart_upload, **upload, MultipartUpload=parts) == 200
    assert server.client(server.admin_credentials).head_object(**name)["ContentLength"] == 5 << 20


@needs_weed
def test_bypass_buckets(server: SandboxServer, lab: Any) -> None:
    admin, anybody = server.client(server.admin_credentials), server.client(None)
    for bucket in ("lab-own", "public-data"):
        admin.put_object(Bucket=bucket, Key="data/a", Body=b"1")
    got = {
        (who, bucket, verb): answer(getattr(client, verb), Bucket=bucket, **arguments)
        for who, client in (("lab", lab), ("anybody", anybody))
        for bucket in ("lab-own", "public-data", BUCKET)
        for verb, arguments in (
            ("get_object", {"Key": "data/a"}),
            ("list_objects_v2", {"Prefix": "data/"}),
            ("put_object", {"Key": "data/b", "Body": b""}),
        )
    }
    assert {key for key, status in got.items() if status != 403} == {
        ("lab", "lab-own", "get_object"),
        ("lab", "lab-own", "list_objects_v2"),
        ("lab", "lab-own", "put_object"),
        ("anybody", "public-data", "get_object"),
        ("anybody", "public-data", "list_objects_v2"),
    }


@needs_weed
def test_a_wrong_checksum_is_refused(lab: Any) -> None:
    status = answer(
        lab.put_object, Bucket=BUCKET, Key="lab/inputs/flipped", Body=b"1", ChecksumCRC64NVME="AAAAAAAAAAA="
    )
    assert status == 400


@needs_weed
def test_versions_count_creations_and_nothing_else(lab: Any, server: SandboxServer) -> None:
    key = "lab/submissions/count-submit.json"
    assert server.submit_versions(BUCKET, key) == 0
    lab.put_object(Bucket=BUCKET, Key=key, Body=b"1", IfNoneMatch="*")
    assert server.submit_versions(BUCKET, key) == 1
    assert answer(lab.put_object, Bucket=BUCKET, Key=key, Body=b"1", IfNoneMatch="*") == 412
    assert server.submit_versions(BUCKET, key) == 1  # a refused put is no event
    lab.put_object(Bucket=BUCKET, Key=key, Body=b"1")
    lab.put_object(Bucket=BUCKET, Key=f"{key}.bak", Body=b"1")
    lab.delete_object(Bucket=BUCKET, Key=key)
    assert server.submit_versions(BUCKET, key) == 2


@needs_weed
def test_keys_are_rotated_and_revoked_without_a_restart(tmp_path: Path) -> None:
    with SandboxServer(tmp_path, buckets=[BUCKET], group="lab") as own:
        process, before = own.pid, own.client(own.lab_credentials)
        listing = {"Bucket": BUCKET, "Prefix": "lab/inputs/"}
        after = own.client(own.rotate_lab_credentials())
        assert (answer(before.list_objects_v2, **listing), answer(after.list_objects_v2, **listing)) == (403, 200)
        own.revoke_lab_credentials()
        assert answer(after.list_objects_v2, **listing) == 403
        assert answer(own.client(own.rotate_lab_credentials()).list_objects_v2, **listing) == 200
        assert own.pid == process


@needs_weed
def test_a_restart_keeps_data_keys_and_port(tmp_path: Path) -> None:
    own = SandboxServer(tmp_path, buckets=[BUCKET], group="lab")
    with own:
        first = (own.endpoint, own.lab_credentials, own.admin_credentials)
        own.client(own.lab_credentials).put_object(Bucket=BUCKET, Key="lab/inputs/kept", Body=b"kept")
        assert stat.S_IMODE(os.stat(own.credentials_file).st_mode) == 0o600
        assert stat.S_IMODE(os.stat(tmp_path / "identities.json").st_mode) == 0o600
        assert own.pid
    assert own.pid == 0
    own.start()
    try:
        assert (own.endpoint, own.lab_credentials, own.admin_credentials) == first
        own.kill()  # as a power cut would
        own.start()
        kept = own.client(own.admin_credentials).get_object(Bucket=BUCKET, Key="lab/inputs/kept")
        assert kept["Body"].read() == b"kept"
        assert own.submit_versions(BUCKET, "lab/inputs/kept") == 1
    finally:
        own.stop()
    port = int(own.endpoint.rsplit(":", 1)[1])
    with socket.create_server(("127.0.0.1", port)), own:  # somebody else has taken the port: another, same data
        assert own.endpoint != first[0]
        assert own.submit_versions(BUCKET, "lab/inputs/kept") == 1
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(UserError, match=f"port {port} is in use"),
        SandboxServer(tmp_path, buckets=[BUCKET], group="lab", port=port),
    ):
        pass


@needs_weed
def test_one_sandbox_per_folder(server: SandboxServer) -> None:
    with pytest.raises(UserError, match=f"another sandbox .process {os.getpid()}. is using"):
        SandboxServer(server.folder, buckets=[BUCKET], group="lab").start()
    assert server.pid  # the first one goes on


@needs_weed
def test_only_loopback_is_listened_on(server: SandboxServer) -> None:
    if not os.path.exists("/proc/net/tcp"):
        pytest.skip("needs /proc/net/tcp")
    inodes = set()
    for descriptor in os.listdir(f"/proc/{server.pid}/fd"):
        target = os.readlink(f"/proc/{server.pid}/fd/{descriptor}")
        if target.startswith("socket:["):
            inodes.add(target[len("socket:[") : -1])
    listening = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == "0A" and columns[9] in inodes:
                listening.add(columns[1].split(":")[0])
    assert listening == {"0100007F"}  # 127.0.0.1


STARTED_BY_A_CHILD = """
import sys, time
from ncaasd.sandbox.server import SandboxServer
server = SandboxServer(sys.argv[1], buckets=["demo-analysis"], group="lab")
server.start()
print(server.pid, server.endpoint, flush=True)
time.sleep(60)
"""


@needs_weed
def test_the_server_ends_with_its_parent_however_that_goes(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", STARTED_BY_A_CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid, endpoint = parent.stdout.readline().split()
    os.kill(int(pid), 0)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and os.path.exists(f"/proc/{pid}"):
        time.sleep(0.05)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)
    with pytest.raises(EndpointConnectionError):
        s3_client(endpoint, None).list_buckets()


@needs_weed
def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "filerldb2").write_text("in the way of the filer's database")
    with pytest.raises(NcaasdError, match=r"(?s)did not come up: .*exit code.*filerldb2.*server\.log"):
        SandboxServer(tmp_path, buckets=[BUCKET], group="lab").start()


@pytest.mark.parametrize(
    ("bucket", "group"), [("Not/A/Bucket", "lab"), ("x", "lab"), (BUCKET, "a group"), (BUCKET, "a/b")]
)
def test_names_that_s3_refuses_are_the_users_mistake(tmp_path: Path, bucket: str, group: str) -> None:
    with pytest.raises(UserError, match="cannot be a"):
        SandboxServer(tmp_path, buckets=[bucket], group=group)


def test_moto_takes_over_and_says_what_is_not_enforced(tmp_path: Path) -> None:
    pytest.importorskip("moto", reason="moto is not installed")
    with SandboxServer(tmp_path, buckets=[BUCKET], group="lab", engine="moto") as own:
        assert any("permissions" in sentence for sentence in own.unenforced)
        lab, key = own.client(own.lab_credentials), "lab/submissions/x-submit.json"
        lab.put_object(Bucket=BUCKET, Key=key, Body=b"1")
        lab.put_object(Bucket=BUCKET, Key=key, Body=b"2")
        assert own.submit_versions(BUCKET, key) == 2
        assert lab.get_object(Bucket=BUCKET, Key=key)["Body"].read() == b"2"
        pid = own.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
