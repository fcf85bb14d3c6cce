"""Every failure between us and S3, as one StoreError with a sentence for people.

No exception of botocore, urllib3, http.client or ssl leaves the store: `translate` is the one place that converts them.
Codes: Amazon S3 API reference, "Error responses"; what they mean for us: the classes in ncaasd/errors.py.
"""

from __future__ import annotations

import functools
import http.client
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import botocore.exceptions as sdk
import botocore.parsers
import urllib3.exceptions

from ncaasd import errors

# The kinds of requests, for the sentences: the IAM action that a policy must allow.
LIST = "s3:ListBucket"
PUT = "s3:PutObject"
GET = "s3:GetObject"
DELETE = "s3:DeleteObject"


@dataclass(frozen=True, slots=True)
class Request:
    """A request to S3: the permission it needs, the bucket, the key (or prefix), and whose credentials it uses."""

    permission: str
    bucket: str
    key: str
    credentials: str = "the default AWS credentials"

    def __str__(self) -> str:
        return f"{self.permission} on {self.bucket}/{self.key}"


class WrongRegionError(errors.StoreError):
    """The bucket is in `region` ("" when S3 did not say). The store tries that region by itself, once."""

    region = ""


class AbandonedError(Exception):
    """Carries what a pace raised, unchanged, through the layers that translate errors."""

    def __init__(self, reason: BaseException) -> None:
        self.reason = reason


_CLASS_OF_CODE: dict[str, type[errors.StoreError]] = {
    "AccessDenied": errors.Denied,
    "AllAccessDisabled": errors.Denied,
    "AccountProblem": errors.Denied,
    "InvalidObjectState": errors.Denied,  # archived to Glacier: readable only after somebody restores it
    "ExpiredToken": errors.BadCredentials,
    "ExpiredTokenException": errors.BadCredentials,
    "InvalidAccessKeyId": errors.BadCredentials,
    "InvalidToken": errors.BadCredentials,
    "SignatureDoesNotMatch": errors.BadCredentials,
    "TokenRefreshRequired": errors.BadCredentials,
    "UnrecognizedClientException": errors.BadCredentials,
    "RequestTimeTooSkewed": errors.ClockSkewed,
    "RequestExpired": errors.ClockSkewed,
    "NoSuchBucket": errors.NoSuchBucket,
    "NoSuchKey": errors.Absent,
    "NoSuchUpload": errors.NoSuchUpload,
    # The server does not have a part as we recorded it: the upload cannot be resumed either.
    "InvalidPart": errors.NoSuchUpload,
    "PreconditionFailed": errors.Exists,
    "ConditionalRequestConflict": errors.Busy,
    "OperationAborted": errors.Busy,
    "BadDigest": errors.Corrupted,
    "InvalidDigest": errors.Corrupted,
    "XAmzContentChecksumMismatch": errors.Corrupted,
    "XAmzContentSHA256Mismatch": errors.Corrupted,
    "IncompleteBody": errors.Corrupted,
    "InvalidRange": errors.Corrupted,  # the object is shorter than was listed
    "SlowDown": errors.Throttled,
    "RequestLimitExceeded": errors.Throttled,
    "Throttling": errors.Throttled,
    "ThrottlingException": errors.Throttled,
    "TooManyRequests": errors.Throttled,
    "ServiceUnavailable": errors.Throttled,
    "InternalError": errors.Throttled,
    "RequestTimeout": errors.Unreachable,
    "PermanentRedirect": WrongRegionError,
    "AuthorizationHeaderMalformed": WrongRegionError,
    "IllegalLocationConstraintException": WrongRegionError,
}

# What a status means when no S3 code came with it. 403 and 404 are not listed: a proxy is as likely to have sent them.
_CLASS_OF_STATUS: dict[int, type[errors.StoreError]] = {
    409: errors.Busy,
    412: errors.Exists,
    429: errors.Throttled,
    500: errors.Throttled,
    503: errors.Throttled,
}


def answered(
    request: Request, status: int, code: str, detail: Mapping[str, str], headers: Mapping[str, str]
) -> errors.StoreError:
    """The error for an answer that is not a success.

    status: of HTTP. code: S3's own, or "" (or digits, which botocore makes up) when the body had none.
    detail: the body's other elements (`Message`, `ServerTime`, `Region`). headers: names in lower case.
    """
    kind = _CLASS_OF_CODE.get(code)
    if kind is None and (not code or code.isdigit() or code == "Unknown"):
        return _without_code(request, status, headers)
    if kind is None:
        kind = _CLASS_OF_STATUS.get(status, errors.StoreError)
    if kind is WrongRegionError:
        return _wrong_region(request, headers.get("x-amz-bucket-region", detail.get("Region", "")))
    if kind is errors.ClockSkewed:
        detail = {"ServerTime": headers.get("date", ""), **detail}
    message, hint = _words(kind, request, code, detail)
    return kind(message, hint=hint)


def _without_code(request: Request, status: int, headers: Mapping[str, str]) -> errors.StoreError:
    kind = _CLASS_OF_STATUS.get(status)
    # botocore turns a page with status 200 into a 500 of its own.
    if kind is None or (status == 500 and "html" in headers.get("content-type", "")):
        return not_s3(request, f"HTTP {status} without an S3 error in it")
    message, hint = _words(kind, request, str(status), {})
    return kind(message, hint=hint)


def _wrong_region(request: Request, region: str) -> WrongRegionError:
    where = f", {region}" if region else ""
    error = WrongRegionError(f"the bucket {request.bucket} is in another region{where}", hint="set `aws.region` to it")
    error.region = region
    return error


def bare(request: Request, status: int) -> errors.StoreError:
    """The error for an answer to HEAD, which never has a body."""
    code = {403: "AccessDenied", 404: "NoSuchKey"}.get(status, "")
    return answered(request, status, code, {}, {})


def not_s3(request: Request, what: str) -> errors.Unreachable:
    """An answer that S3 cannot have given: a captive portal's page, a proxy's, another server's."""
    return errors.Unreachable(
        f"{request}: something that is not S3 answered ({what})",
        hint="a login page of the network, a proxy or a wrong endpoint_url is in between; tried again later",
    )


def _words(kind: type[errors.StoreError], request: Request, code: str, detail: Mapping[str, str]) -> tuple[str, str]:
    """The sentence and the hint."""
    said = detail.get("Message", "").rstrip(".")
    where = f"{request.bucket}/{request.key}"
    if kind is errors.Denied:
        return f"{request} is denied", (
            f"the policy of {request.credentials} does not allow it: check `group`, the analysis's name and "
            "`aws.profile`, or ask the people who gave you the key"
        )
    if kind is errors.BadCredentials:
        return _about_credentials(request, code, said)
    if kind is errors.ClockSkewed:
        return f"this machine's clock is wrong, so S3 refuses what it signs{_skew(detail)}", "set up NTP"
    if kind is errors.NoSuchBucket:
        return f"there is no bucket {request.bucket}", "an analysis's name is its bucket's: check it, and endpoint_url"
    if kind is errors.Absent:
        return f"{where} is not there", ""
    if kind is errors.NoSuchUpload:
        return f"the multipart upload of {where} cannot be gone on with ({code}: {said})", ""
    if kind is errors.Exists:
        return (
            f"{where} has been replaced meanwhile" if request.permission == GET else f"{where} is there already"
        ), ""
    if kind is errors.Busy:
        return f"{where} is being changed by another request ({code})", "tried again later"
    if kind is errors.Throttled:
        return f"S3 is too busy for {request} ({code})", "tried again more slowly"
    if kind is errors.Corrupted:
        return f"{where} did not arrive as it was sent ({code}: {said})", "tried again"
    if kind is errors.Unreachable:
        return f"{request} got no usable answer in time ({code})", "tried again later"
    return f"{request} failed: {code}: {said}", ""


def _about_credentials(request: Request, code: str, said: str) -> tuple[str, str]:
    if code.startswith(("Expired", "TokenRefresh")):
        return f"the session token of {request.credentials} has expired", "log in again; it is used without a restart"
    if code == "InvalidAccessKeyId":
        return f"S3 does not know the access key of {request.credentials}", "it was revoked, or is for another endpoint"
    if code == "SignatureDoesNotMatch":
        return f"the secret key of {request.credentials} does not fit its access key", "copy both again"
    return f"S3 refuses {request.credentials} ({code}: {said})", "get new credentials"


def _skew(detail: Mapping[str, str]) -> str:
    ours, theirs = detail.get("RequestTime", ""), detail.get("ServerTime", "")
    said = [f"it says {ours}" if ours else "", f"S3 says {theirs}" if theirs else ""]
    return f" ({', '.join(filter(None, said))})" if any(said) else ""


def translate(request: Request, error: Exception) -> errors.StoreError:
    """The StoreError for any exception of a client; a StoreError is returned as it is."""
    if isinstance(error, errors.StoreError):
        return error
    if isinstance(error, sdk.ClientError):
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        detail = {str(name): str(value) for name, value in error.response.get("Error", {}).items()}
        if error.operation_name == "HeadObject":
            return bare(request, status)
        headers = error.response["ResponseMetadata"].get("HTTPHeaders", {})
        return answered(request, status, detail.get("Code", ""), detail, headers)
    for kinds, found in _BY_EXCEPTION:
        if isinstance(error, kinds):
            return found(request, error)
    return errors.StoreError(f"{request} failed: {type(error).__name__}: {error}")


def _no_credentials(request: Request, error: Exception) -> errors.StoreError:
    return errors.BadCredentials(
        f"there are no usable credentials for {request.bucket} from {request.credentials}: {error}",
        hint="give `aws.profile`, run `aws configure`, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or, under "
        "systemd, LoadCredential=aws-credentials:FILE",
    )


def _not_parsed(request: Request, _error: Exception) -> errors.StoreError:
    return not_s3(request, "a body that is not S3's XML")


def _tls(request: Request, error: Exception) -> errors.StoreError:
    return errors.Unreachable(
        f"{request}: no trustworthy TLS connection: {_short(error)}",
        hint="nothing was sent; if your network inspects TLS, name its CA file in AWS_CA_BUNDLE",
    )


def _timed_out(request: Request, error: Exception) -> errors.StoreError:
    return errors.Unreachable(f"{request} got no answer in time: {_short(error)}", hint="tried again later")


def _cut_short(request: Request, error: Exception) -> errors.StoreError:
    return errors.Corrupted(
        f"{request.bucket}/{request.key} ended before all of it had come: {_short(error)}", hint="tried again"
    )


def _broken_stream(request: Request, error: Exception) -> errors.StoreError:
    # botocore wraps both an early end and a reset connection of urllib3 in this exception.
    cause = error.__context__
    early = isinstance(cause, urllib3.exceptions.ProtocolError) and "IncompleteRead" in str(cause)
    return _cut_short(request, error) if early else _no_connection(request, error)


def _no_connection(request: Request, error: Exception) -> errors.StoreError:
    return errors.Unreachable(
        f"{request} got no answer: {_short(error)}", hint="is the network up, and endpoint_url right? tried again later"
    )


def _short(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text if len(text) <= 300 else text[:300] + "…"


# First match wins.
_BY_EXCEPTION = (
    (
        (
            sdk.NoCredentialsError,
            sdk.PartialCredentialsError,
            sdk.CredentialRetrievalError,
            sdk.TokenRetrievalError,
            sdk.ProfileNotFound,
            sdk.ConfigNotFound,
            sdk.ConfigParseError,
            sdk.InvalidConfigError,
            sdk.MetadataRetrievalError,
            sdk.SSOError,
        ),
        _no_credentials,
    ),
    ((sdk.SSLError, urllib3.exceptions.SSLError, ssl.SSLError, ssl.CertificateError), _tls),
    (
        (sdk.ReadTimeoutError, sdk.ConnectTimeoutError, urllib3.exceptions.TimeoutError, TimeoutError),
        _timed_out,
    ),
    (
        (
            sdk.IncompleteReadError,
            urllib3.exceptions.IncompleteRead,
            http.client.IncompleteRead,
        ),
        _cut_short,
    ),
    ((sdk.ResponseStreamingError,), _broken_stream),
    ((botocore.parsers.ResponseParserError,), _not_parsed),
    (
        (
            sdk.HTTPClientError,
            sdk.ConnectionError,
            urllib3.exceptions.HTTPError,
            http.client.HTTPException,
            OSError,
        ),
        _no_connection,
    ),
)


def server_time(headers: Mapping[str, str], request: Request, name: str = "date") -> float:
    """The server's own time, from a header of its answer; raises Unreachable where there is none."""
    try:
        return _seconds(headers[name])
    except (KeyError, ValueError, TypeError):
        raise not_s3(request, f"an answer without {name}") from None


@functools.lru_cache(maxsize=16)
def _seconds(date: str) -> float:
    return parsedate_to_datetime(date).timestamp()
