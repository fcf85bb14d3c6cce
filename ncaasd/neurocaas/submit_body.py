"""What a submit file asks for, and its exact bytes.

Rules: NeuroCAAS protocol, docs/neurocaas.md ("Names", "Storage bypass").
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from ncaasd.neurocaas.addresses import is_address


@dataclass(frozen=True, slots=True)
class SubmitBody:
    """What a submit file asks for. Each value is a key in the analysis's own bucket, or `s3://bucket/key`."""

    datanames: tuple[str, ...]
    configname: str
    timestamp: str  # the job id
    instance_type: str | None = None
    resultpath: str | None = None

    def render(self) -> bytes:
        """The file's exact bytes: the same for the same body, UTF-8 without BOM; `dataname` is always a list."""
        body: dict[str, object] = {
            "dataname": list(self.datanames),
            "configname": self.configname,
            "timestamp": self.timestamp,
        }
        # absent, not null: a null instance_type kills the job in step 2
        if self.instance_type is not None:
            body["instance_type"] = self.instance_type
        if self.resultpath is not None:
            body["resultpath"] = self.resultpath
        return (json.dumps(body, ensure_ascii=True, indent=1) + "\n").encode("ascii")

    @property
    def bypass(self) -> bool:
        """Whether data or config come from outside the analysis's own folders."""
        return any(is_address(name) for name in (*self.datanames, self.configname))

    @property
    def basenames(self) -> tuple[str, ...]:
        """What the platform names each dataset's status file by."""
        return tuple(basename(name) for name in self.datanames)


def basename(name: str) -> str:
    return name.rpartition("/")[2]
