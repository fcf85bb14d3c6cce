"""What each key may do on the sandbox: NeuroCAAS's policy of a group, and the identities that SeaweedFS reads.

Source of the group's policy: NeuroCAAS protocol, docs/neurocaas.md, "Permissions of a user's key".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

AREAS = ("inputs", "configs", "submissions", "results")

Policy = dict[str, Any]


class Credentials(NamedTuple):
    """One key pair."""

    access_key: str
    secret_key: str


def group_policy(buckets: Iterable[str], group: str) -> Policy:
    """The policy of a user's key: what the protocol's table allows, and explicit denials of what NeuroCAAS never granted.

    The denials are needed although nothing allows these actions, because SeaweedFS includes some of them (aborting, listing
    parts, ACL and tagging headers, copying) in the permission to put.
    """
    names = list(buckets)

    def below(*areas: str) -> list[str]:
        return [f"arn:aws:s3:::{name}/{group}/{area}/*" for name in names for area in areas]

    whole = [f"arn:aws:s3:::{name}" for name in names]
    everything = [f"arn:aws:s3:::{name}/*" for name in names]
    return {
        "Version": "2012-10-17",
        "Statement": [
            _allow(["s3:PutObject"], below("inputs", "configs", "submissions")),
            _allow(["s3:GetObject"], below("configs", "results")),
            _allow(["s3:DeleteObject"], below(*AREAS)),
            _allow(["s3:ListBucket"], whole, {"StringLike": {"s3:prefix": [f"{group}/{area}/*" for area in AREAS]}}),
            _allow(["s3:ListBucket"], whole, {"StringEquals": {"s3:prefix": f"{group}/", "s3:delimiter": "/"}}),
            _deny(["s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"], everything),
            _deny(["s3:ListBucketMultipartUploads", "s3:ListBucketVersions"], whole),
            *(
                _deny(["s3:PutObject"], everything, {"Null": {f"s3:{header}": "false"}})
                for header in ("x-amz-acl", "x-amz-tagging", "x-amz-copy-source")
            ),
        ],
    }


def owner_policy(buckets: Iterable[str]) -> Policy:
    """The policy of a lab on buckets of its own (storage bypass): objects may be read, put, deleted and listed."""
    names = list(buckets)
    return {
        "Version": "2012-10-17",
        "Statement": [
            _allow(["s3:GetObject", "s3:PutObject", "s3:DeleteObject"], [f"arn:aws:s3:::{name}/*" for name in names]),
            _allow(["s3:ListBucket"], [f"arn:aws:s3:::{name}" for name in names]),
        ],
    }


def public_policy(buckets: Iterable[str]) -> Policy:
    """What anybody may do, unsigned, on a public bucket: read and list."""
    names = list(buckets)
    return {
        "Version": "2012-10-17",
        "Statement": [
            _allow(["s3:GetObject"], [f"arn:aws:s3:::{name}/*" for name in names]),
            _allow(["s3:ListBucket"], [f"arn:aws:s3:::{name}" for name in names]),
        ],
    }


def identities(
    *,
    admin: Credentials,
    lab: Credentials | None,
    group: str,
    buckets: Sequence[str],
    extra_buckets: Sequence[str] = (),
    public_buckets: Sequence[str] = (),
) -> str:
    """The text of SeaweedFS's `-s3.config` file. `lab=None` is a revoked key: the lab's identity has none.

    The lab's key has no rights on the public buckets: for another account's bucket a key needs its own account's permission
    too, which NeuroCAAS's users don't have. Public buckets are read unsigned.
    """
    people: list[dict[str, Any]] = [
        {"name": "admin", "credentials": [_key(admin)], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    ]
    policies = {"group": group_policy(buckets, group)}
    if extra_buckets:
        policies["owner"] = owner_policy(extra_buckets)
    # A reload keeps identities that were removed from the file, so a revoked one stays in it, without a key.
    keys = [] if lab is None else [_key(lab)]
    people.append({"name": "lab", "credentials": keys, "policyNames": list(policies)})
    if public_buckets:
        policies["public-read"] = public_policy(public_buckets)
        people.append({"name": "anonymous", "policyNames": ["public-read"]})
    named = [{"name": name, "content": json.dumps(policy)} for name, policy in policies.items()]
    return json.dumps({"identities": people, "policies": named}, indent=1)


def _key(credentials: Credentials) -> dict[str, str]:
    return {"accessKey": credentials.access_key, "secretKey": credentials.secret_key}


def _allow(actions: list[str], resources: list[str], condition: Policy | None = None) -> Policy:
    return _statement("Allow", actions, resources, condition)


def _deny(actions: list[str], resources: list[str], condition: Policy | None = None) -> Policy:
    return _statement("Deny", actions, resources, condition)


def _statement(effect: str, actions: list[str], resources: list[str], condition: Policy | None) -> Policy:
    statement: Policy = {"Effect": effect, "Action": actions, "Resource": resources}
    return statement if condition is None else {**statement, "Condition": condition}
