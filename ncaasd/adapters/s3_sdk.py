"""Objects' bytes to and from S3 by the SDK: what s3_fast.py is held to by the same tests, and slower."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import botocore.handlers

from ncaasd.adapters.s3_errors import AbandonedError, Request
from ncaasd.adapters.s3_http import PACED
from ncaasd.ports import Pace


def alone(client: Any) -> Any:
    """Make a client send exactly the requests it is asked for, and give it back."""
    # A file-like body alone makes the SDK wait for a "100 Continue" first.
    client.meta.events.unregister("before-call.s3", botocore.handlers.add_expect_header)
    # Any 3xx, a captive portal's too, makes the SDK look for the bucket's region with a HeadBucket, which we may not
    # send; redirected, that one looks again, until the stack is full.
    client.meta.events.register("before-call.s3", _no_redirects)
    return client


def _no_redirects(context: dict[str, Any], **_: Any) -> None:
    context.setdefault("s3_redirect", {})["redirected"] = True


class SdkBytes:
    """Puts and gets of one bucket. Its methods are those of s3_fast.FastBytes."""

    def __init__(self, bucket: str, client: Any) -> None:
        self._bucket = bucket
        self._client = client

    def put(
        self,
        request: Request,
        body: bytes | memoryview,
        *,
        crc: str,
        only_if_absent: bool,
        part: tuple[str, int] | None,
        pace: Pace | None,
    ) -> Mapping[str, str]:
        named: dict[str, Any] = {"Bucket": self._bucket, "Key": request.key, "ChecksumCRC64NVME": crc}
        if only_if_absent:
            named["IfNoneMatch"] = "*"
        if part is not None:
            named["UploadId"], named["PartNumber"] = part
        send = self._client.put_object if part is None else self._client.upload_part
        with _Body(body, pace) as file:
            return _headers(send(Body=file, **named))

    def get(self, request: Request, *, etag: str | None, span: str | None) -> tuple[Mapping[str, str], Any]:
        named: dict[str, Any] = {"Range": span} if span is not None else {"ChecksumMode": "ENABLED"}
        if etag is not None:
            named["IfMatch"] = f'"{etag}"'
        answer = self._client.get_object(Bucket=self._bucket, Key=request.key, **named)
        return _headers(answer), answer["Body"]

    def close(self) -> None:
        self._client.close()


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
