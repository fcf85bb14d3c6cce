"""Everything that can go wrong, as one tree.

NcaasdError                what happened, to which thing, why; `hint` says what to do next
├── UserError              the user's mistake: exit code 2, never a stack trace
│   ├── DeclarationError   a config, manifest or submit file is wrong; carries every `Problem` of it
│   └── StateError         the state folder cannot be used (locked, newer schema, network file system)
├── LocalError             this machine: a disk, a file, a descriptor
│   ├── FileChanged        a file is not what was observed; it settles again
│   ├── FileVanished       a file is gone
│   ├── FileUnreadable     a file exists but can't be read: a person must mend its permissions or its disk
│   ├── UnsafePath         a path that would leave its folder, or is a symlink, is refused
│   ├── DiskFull           no space, or less than is kept free
│   ├── RootMissing        a watched or written tree is not there (unmounted?)
│   ├── DiskSilent         a disk does not answer (its mount hangs); it gets no requests until it does
│   ├── ToolFailed         a command of the config's `tools` failed, or took too long; carries its output
│   └── SyncFailed         an fsync of a fetched file failed: what was written is lost, the process ends
├── JournalError           the journal cannot be written or trusted; nothing is submitted
│   └── JournalBroken      an fsync failed or the file is corrupt: the process ends
└── StoreError             an error of S3, translated in one place, adapters/s3/store.py
    ├── Denied             403: which permission, on what
    ├── BadCredentials     no, wrong or expired credentials
    ├── ClockSkewed        RequestTimeTooSkewed: this machine's clock is wrong
    ├── NoSuchBucket       the analysis's bucket is not there
    ├── Absent             404 for a key
    ├── NoSuchUpload       the multipart upload is not there any more
    ├── Exists             412: something is at the key already (or If-Match no longer matches)
    ├── Busy               409: a conflicting request is under way
    ├── Throttled          429, 503, 500: slow down and try again
    ├── Corrupted          a checksum or size did not agree; the bytes are not to be trusted
    └── Unreachable        no usable answer (refused, reset, timeout, TLS, a proxy's HTML): the outcome is unknown
"""

from __future__ import annotations

from dataclasses import dataclass


class NcaasdError(Exception):
    """What happened, in one sentence for people; `hint` is what to do about it, or empty."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UserError(NcaasdError):
    pass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a file people write. `line` and `column` count from 1; 0 is "the whole file"."""

    file: str
    line: int
    column: int
    key: str  # the key's path, as in `jobs.poll.min`; empty for the file as a whole
    message: str  # what was found, what is allowed

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{where}: {self.key}: {self.message}" if self.key else f"{where}: {self.message}"


class DeclarationError(UserError):
    """A declaration is refused as a whole; `problems` has all that is wrong in it, in the order of the file."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(p) for p in problems))
        self.problems = problems


class StateError(UserError):
    pass


class LocalError(NcaasdError):
    pass


class FileChanged(LocalError):
    pass


class FileVanished(LocalError):
    pass


class FileUnreadable(LocalError):
    """A file exists, but the system refuses to read it: permissions are missing, or its disk has a fault."""


class UnsafePath(LocalError):
    pass


class DiskFull(LocalError):
    pass


class RootMissing(LocalError):
    pass


class DiskSilent(LocalError):
    pass


class ToolFailed(LocalError):
    """`output`: the last lines of the command's output."""

    def __init__(self, message: str, *, hint: str = "", output: str = "") -> None:
        super().__init__(message, hint=hint)
        self.output = output


class SyncFailed(LocalError):
    pass


class JournalError(NcaasdError):
    pass


class JournalBroken(JournalError):
    pass


class StoreError(NcaasdError):
    """`transient`: whether the same request may succeed later by itself."""

    transient = False


class Denied(StoreError):
    pass


class BadCredentials(StoreError):
    pass


class ClockSkewed(StoreError):
    pass


class NoSuchBucket(StoreError):
    pass


class Absent(StoreError):
    pass


class NoSuchUpload(StoreError):
    pass


class Exists(StoreError):
    pass


class Busy(StoreError):
    transient = True


class Throttled(StoreError):
    transient = True


class Corrupted(StoreError):
    transient = True


class Unreachable(StoreError):
    transient = True
