"""The requests of S3 that we need, made by the AWS SDK: the same tests hold for it and for adapters/s3/requests.py (faster)."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import botocore.config
import botocore.handlers
import botocore.session
from botocore import UNSIGNED

from ncaasd.adapters.s3.answers import Body, Options, Page, Requests, encoded
from ncaasd.adapters.s3.errors import AbandonedError, Request
from ncaasd.adapters.s3.http import PACED
from ncaasd.model import ObjectInfo, Part
from ncaasd.ports import Pace


class SdkRequests(Requests):
    """Requests about one bucket."""

    def __init__(
        self,
        bucket: str,
        session: botocore.session.Session,
        region: str | None,
        options: Options,
        *,
        now: Callable[[], float],
    ) -> None:
        """`now` is of no use here: the SDK asks the system's clock, as it signs."""
        self._bucket = bucket
        self._client: Any = session.create_client(  # the SDK makes its clients' classes at run time
            "s3",
            endpoint_url=options.endpoint_url,
            config=botocore.config.Config(
                region_name=region,
                signature_version=UNSIGNED if options.unsigned else "s3v4",
                connect_timeout=options.connect_timeout,
                read_timeout=options.read_timeout,
                max_pool_connections=options.connections,
                tcp_keepalive=True,
                retries={"total_max_attempts": 1, "mode": "standard"},  # tries are the store's business
                # Checksums are made once, where the file is read; the SDK's own would be a second pass.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"addressing_style": "path" if options.endpoint_url else "auto", "payload_signing_enabled": False},
                user_agent_extra="ncaasd",
            ),
        )
        events = self._client.meta.events
        # A file-like body alone makes the SDK wait for a "100 Continue" first.
        events.unregister("before-call.s3", botocore.handlers.add_expect_header)
        # Any 3xx, a captive portal's too, makes the SDK look for the bucket's region with a HeadBucket, which we may
        # not send; redirected, that one looks again, until the stack is full.
        events.register("before-call.s3", _no_redirects)

    def close(self) -> None:
        self._client.close()

    def list(self, request: Request, *, token: str, count: int, delimiter: str = "") -> Page:
        more = {"ContinuationToken": token} if token else {}
        if delimiter:
            more["Delimiter"] = delimiter
        answer = self._client.list_objects_v2(Bucket=self._bucket, Prefix=request.key, MaxKeys=count, **more)
        objects = [
            ObjectInfo(found["Key"], found["Size"], found["ETag"].strip('"'), found["LastModified"].timestamp())
            for found in answer.get("Contents", ())
        ]
        token = answer.get("NextContinuationToken", "") if answer.get("IsTruncated") else ""
        folders = [found["Prefix"] for found in answer.get("CommonPrefixes", ())]
        return Page(_headers(answer), answer.get("Name", ""), objects, token, folders)

    def put(
        self,
        request: Request,
        body: bytes | memoryview,
        *,
        crc: int,
        only_if_absent: bool,
        part: tuple[str, int] | None,
        pace: Pace | None,
    ) -> Mapping[str, str]:
        named: dict[str, Any] = {"Bucket": self._bucket, "Key": request.key, "ChecksumCRC64NVME": encoded(crc)}
        if only_if_absent:
            named["IfNoneMatch"] = "*"
        if part is not None:
            named["UploadId"], named["PartNumber"] = part
        send = self._client.put_object if part is None else self._client.upload_part
        with _Body(body, pace) as file:
            return _headers(send(Body=file, **named))

    def get(self, request: Request, *, etag: str | None, span: str | None) -> tuple[Mapping[str, str], Body]:
        named: dict[str, Any] = {"Range": span} if span is not None else {"ChecksumMode": "ENABLED"}
        if etag is not None:
            named["IfMatch"] = f'"{etag}"'
        answer = self._client.get_object(Bucket=self._bucket, Key=request.key, **named)
        return _headers(answer), answer["Body"]

    def head(self, request: Request, *, etag: str) -> Mapping[str, str]:
        return _headers(
            self._client.head_object(Bucket=self._bucket, Key=request.key, IfMatch=f'"{etag}"', ChecksumMode="ENABLED")
        )

    def create(self, request: Request) -> str:
        answer = self._client.create_multipart_upload(
            Bucket=self._bucket, Key=request.key, ChecksumAlgorithm="CRC64NVME", ChecksumType="FULL_OBJECT"
        )
        return str(answer.get("UploadId", ""))

    def complete(
        self, request: Request, upload_id: str, parts: Sequence[Part], *, crc: int, size: int, only_if_absent: bool
    ) -> tuple[Mapping[str, str], str]:
        named = [
            {"PartNumber": part.number, "ETag": f'"{part.etag}"', "ChecksumCRC64NVME": encoded(part.crc)}
            for part in parts
        ]
        answer = self._client.complete_multipart_upload(
            Bucket=self._bucket,
            Key=request.key,
            UploadId=upload_id,
            MultipartUpload={"Parts": named},
            ChecksumCRC64NVME=encoded(crc),
            ChecksumType="FULL_OBJECT",
            MpuObjectSize=size,
            **({"IfNoneMatch": "*"} if only_if_absent else {}),
        )
        return _headers(answer), str(answer.get("ETag", ""))

    def delete(self, request: Request) -> int:
        answer = self._client.delete_object(Bucket=self._bucket, Key=request.key)
        return int(answer["ResponseMetadata"]["HTTPStatusCode"])


def _no_redirects(context: dict[str, Any], **_: Any) -> None:
    context.setdefault("s3_redirect", {})["redirected"] = True


def _headers(answer: Mapping[str, Any]) -> Mapping[str, str]:
    found: Mapping[str, str] = answer["ResponseMetadata"]["HTTPHeaders"]  # names in lower case
    return found


class _Body(io.BytesIO):
    """A body as a file, so that it is sent in blocks (a socket's timeout is for one sendall), at the allowed pace."""

    def __init__(self, body: bytes | memoryview, pace: Pace | None) -> None:
        super().__init__(body)
        self._pace = pace
        self._raised: BaseException | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        block = super().read(size)
        # Larger reads are the signer's, who hashes the body before anything is sent where there is no TLS.
        if self._pace is not None and block and size is not None and 0 < size <= PACED:
            try:
                self._pace(len(block))
            except BaseException as raised:
                self._raised = raised
                raise
        return block

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        super().__exit__(None, None, None)
        if self._raised is not None:
            raise AbandonedError(self._raised)
