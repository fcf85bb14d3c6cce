"""Somebody who uses a sandbox in these tests."""

from __future__ import annotations

import json
from typing import Any

from ncaasd.sandbox.home import Sandbox

BUCKET = "demo-analysis"


class User:
    """Somebody who submits jobs to a sandbox, and somebody who may look everywhere."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.lab = sandbox.server.client(sandbox.server.lab_credentials)
        self.admin = sandbox.server.client(sandbox.server.admin_credentials)
        self.submitted = 0

    def put(self, key: str, body: str | bytes, *, bucket: str = BUCKET) -> None:
        raw = body.encode() if isinstance(body, str) else body
        self.admin.put_object(Bucket=bucket, Key=key, Body=raw)

    def submit(self, job_id: Any, datasets: object, config: object, **more: object) -> str:
        """The job folder's prefix. The submit file is put with the lab's own key."""
        body = {"dataname": datasets, "configname": config, "timestamp": job_id, **more}
        self.submitted += 1
        self.lab.put_object(
            Bucket=BUCKET, Key=f"lab/submissions/{self.submitted:04d}-submit.json", Body=json.dumps(body).encode()
        )
        return f"lab/results/job__{BUCKET}_{job_id}/"

    def wait(self, timeout: float = 60.0) -> None:
        assert self.sandbox.manager.wait(self.submitted, timeout), "the jobs did not end in time"

    def get(self, key: str, *, bucket: str = BUCKET) -> bytes:
        body: bytes = self.admin.get_object(Bucket=bucket, Key=key)["Body"].read()
        return body

    def names(self, prefix: str, *, bucket: str = BUCKET) -> list[str]:
        """The keys below a prefix, relative to it."""
        pages = self.admin.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return sorted(found["Key"][len(prefix) :] for page in pages for found in page.get("Contents", []))

    def history(self, key: str, *, bucket: str = BUCKET) -> list[bytes]:
        """Everything that was ever put at a key, the oldest first."""
        pages = self.admin.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=key)
        # A listing has the newest first; LastModified is too coarse to order by.
        versions = [found for page in pages for found in page.get("Versions", []) if found["Key"] == key]
        return [
            self.admin.get_object(Bucket=bucket, Key=key, VersionId=found["VersionId"])["Body"].read()
            for found in reversed(versions)
        ]
