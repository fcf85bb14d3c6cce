"""Uploads: one local file to one key, whole and of one version, or not at all."""

from __future__ import annotations

from collections import deque
from functools import partial

from ncaasd.adapters.transfers.checksums import combined_crc, crc64, multipart_etag
from ncaasd.adapters.transfers.source import Source
from ncaasd.adapters.transfers.transfer import Environment, Step, Transfer
from ncaasd.errors import Busy, Corrupted, Exists, FileChanged, FileVanished, NoSuchUpload
from ncaasd.model import ObjectInfo, Outcome, Part, Stored, UploadTask, Verdict
from ncaasd.ports import ObjectStore

UPLOAD_CRASH_POINTS = (
    "upload.put",  # a small file's answer is there, nothing is recorded
    "upload.created",  # F05: the UploadId is answered, not recorded
    "upload.logged",  # the UploadId is recorded, no part is sent
    "upload.part",  # F06: a part is answered, not recorded
    "upload.parts_done",  # F07: all parts are recorded, Complete is next
    "upload.completed",  # F08: Complete is answered, nothing is recorded
)
BEGINNINGS = 3  # how often S3 may lose a multipart upload before the task fails


class Upload(Transfer):
    """What both ways of uploading share: looking at what is at the key, and checking the file afterwards."""

    def __init__(self, task: UploadTask, env: Environment) -> None:
        super().__init__(task, env)
        self.upload = task

    @property
    def size(self) -> int:
        return self.upload.expect.size

    @property
    def store(self) -> ObjectStore:
        # Asked for each time: credentials and config may have changed since the last request.
        return self.env.store_for(self.upload.analysis, None)

    def verdict_of(self, error: Exception) -> Outcome:
        if isinstance(error, FileVanished):
            return Outcome(self.upload, Verdict.VANISHED, detail=str(error))
        if isinstance(error, FileChanged):
            return Outcome(self.upload, Verdict.CHANGED, detail=str(error))
        return self.failed(error)

    def adopted(self, source: Source, found: ObjectInfo) -> Outcome | None:
        """STORED when the object at the key has this file's content; FOREIGN when it hasn't and the key isn't ours; else None.

        The local file is read once to find out; the object cannot be read (no GET on inputs).
        """
        task = self.upload
        if found.size == task.expect.size:
            digest = source.digest(found.etag, task.part_size, self.checkpoint)
            source.check()
            if digest is not None and found.etag in digest.etags:
                stored = Stored(task.key, found.size, found.etag, digest.crc, adopted=True)
                return self.stored(source, stored)
        if task.ours:
            return None
        detail = (
            f"something else is at {task.key} already ({found.size} bytes, ETag {found.etag}), which this rig did not "
            f"put: another rig, or the website"
        )
        return Outcome(task, Verdict.FOREIGN, detail=detail)

    def source(self) -> Source:
        task = self.upload
        return Source(task.path, task.expect, self.env.disks, task.link, self.env.open_link)

    def met(self, source: Source) -> Outcome:
        """The outcome after status 412: another's object is at the key, or our own, whose answer was lost."""
        found = self.store.find(self.upload.key)
        known = found and (self.as_completed(source, found) or self.adopted(source, found))
        if not known:
            raise Busy(
                f"S3 refused {self.upload.key} because something is there, but nothing is, or what may be replaced"
            )
        return known

    def as_completed(self, source: Source, found: ObjectInfo) -> Outcome | None:
        """STORED when the object is the one that our recorded answers describe."""
        return None

    def stored(self, source: Source, stored: Stored) -> Outcome:
        """The outcome once the object is in S3: STORED if the file is still as it was observed, else CHANGED or VANISHED, also
        with what was stored."""
        try:
            source.check()
            source.check_path()
        except (FileChanged, FileVanished) as error:
            verdict = Verdict.VANISHED if isinstance(error, FileVanished) else Verdict.CHANGED
            return Outcome(self.upload, verdict, stored=stored, detail=str(error))
        return Outcome(self.upload, Verdict.STORED, stored=stored)


class WholeUpload(Upload):
    """A file of one part or less: one PUT."""

    small = True

    def __init__(self, task: UploadTask, env: Environment) -> None:
        super().__init__(task, env)
        self.memory = self.size
        self._taken = False

    def fresh(self) -> Step | None:
        if self._taken:
            return None
        self._taken = True
        return Step(self._put, self.size)

    def close(self) -> None:
        pass

    def _put(self) -> Outcome | None:
        task, store = self.upload, self.store
        with self.source() as source:
            if task.look_first and (found := store.find(task.key)) and (known := self.adopted(source, found)):
                return known
            with self.env.buffers.lend(self.size) as body:
                source.read(0, body)
                source.check()
                crc = crc64(body)
                try:
                    with self.meter.request(self.size, self.pace) as pace:
                        info = store.put(task.key, body, crc=crc, only_if_absent=not task.ours, pace=pace)
                except Exists:
                    return self.met(source)
            self.env.crash("upload.put")
            # The server has verified the checksum of these bytes, and the key is listed again before a job uses them.
            return self.stored(source, Stored(task.key, self.size, info.etag, crc))


class MultipartUpload(Upload):
    """A larger file: sent in parts, in any order, by several workers, and resumed after a restart of the process."""

    small = False

    def __init__(self, task: UploadTask, env: Environment) -> None:
        super().__init__(task, env)
        self.memory = task.part_size
        self._count = -(-task.expect.size // task.part_size)
        self._upload_id = task.upload_id
        # The journal's parts, if they have the sizes of ours; the others are sent again.
        known = {part.number: part for part in task.parts if part.size == self._size_of(part.number)}
        self._parts: dict[int, Part] = known if task.upload_id else {}
        self._source: Source | None = None
        self._todo: deque[int] | None = None  # None: not prepared
        self._ending = False  # the finishing step was given out
        self._lost = False  # the upload is not there any more
        self._beginnings = 0
        self._completed: ObjectInfo | None = None

    def take(self, now: float) -> Step | None:
        if self._lost and not (self.halted or self.stuck) and self.outcome is None:
            return self._anew()
        return super().take(now)

    def fresh(self) -> Step | None:
        if self._todo is None:
            return self._first_step()
        if self._todo:
            number = self._todo.popleft()
            return Step(partial(self._send, number), self._size_of(number))
        if len(self._parts) == self._count and not self.inflight and not self._ending:
            self._ending = True
            return Step(self._complete, 0)
        return None

    def close(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None

    def _first_step(self) -> Step | None:
        if self.inflight or self._again:
            return None  # being prepared
        return Step(self._prepare, 0, remote=self._upload_id is None)

    def _anew(self) -> Step | None:
        """Begin the upload again, once every step that still uses the lost one has ended."""
        if self.inflight:
            return None
        self._lost = False
        self._beginnings += 1
        self._again.clear()
        self._todo, self._ending = None, False
        return Step(self._begin_again, 0)

    def _size_of(self, number: int) -> int:
        size, part_size = self.upload.expect.size, self.upload.part_size
        return min(part_size, size - (number - 1) * part_size) if 1 <= number <= self._count else -1

    def _opened(self) -> Source:
        if self._source is None:
            self._source = self.source()
        return self._source

    # -- the steps, in worker threads

    def _prepare(self) -> Outcome | None:
        """Open the file and, unless there is an UploadId, look at the key and get one; then the missing parts can be sent."""
        source = self._opened()
        if self._upload_id is None:
            # Before gigabytes are sent: adopt what is there, or refuse.
            if (found := self.store.find(self.upload.key)) and (known := self.adopted(source, found)):
                return known
            self._create()
        self._ready()
        return None

    def _begin_again(self) -> Outcome | None:
        """After NoSuchUpload: either it was completed and the answer was lost (then the object is there), or it is gone."""
        source = self._opened()
        found = self.store.find(self.upload.key)
        if found and (outcome := self.as_completed(source, found) or self.adopted(source, found)):
            return outcome
        if self._beginnings > BEGINNINGS:
            raise NoSuchUpload(
                f"S3 forgot the upload of {self.upload.key} {self._beginnings} times",
                hint="a lifecycle rule of the bucket may abort uploads",
            )
        self._parts.clear()
        self.meter.start_at(0)
        self.env.log.upload_lost(self.upload.file_id)
        self._create()
        self._ready()
        return None

    def _create(self) -> None:
        upload_id = self.store.create_multipart(self.upload.key)
        self.env.crash("upload.created")
        self.env.log.upload_created(self.upload.file_id, upload_id)
        self.env.crash("upload.logged")
        self._upload_id = upload_id

    def _ready(self) -> None:
        self.meter.start_at(sum(part.size for part in self._parts.values()))
        self._todo = deque(number for number in range(1, self._count + 1) if number not in self._parts)

    def _send(self, number: int) -> Outcome | None:
        task, store, source, size = self.upload, self.store, self._opened(), self._size_of(number)
        assert self._upload_id is not None
        with self.env.buffers.lend(size) as body:
            source.read((number - 1) * task.part_size, body)
            source.check()  # after the read: these bytes are of the version that was observed
            crc = crc64(body)
            try:
                with self.meter.request(size, self.pace) as pace:
                    part = store.put_part(task.key, self._upload_id, number, body, crc=crc, pace=pace)
            except NoSuchUpload:
                self._lost = True
                return None
        self.env.crash("upload.part")
        self.env.log.part_stored(task.file_id, part)
        self._parts[number] = part
        return None

    def _complete(self) -> Outcome | None:
        task, store, source = self.upload, self.store, self._opened()
        assert self._upload_id is not None
        parts = [self._parts[number] for number in range(1, self._count + 1)]
        crc = combined_crc(parts)
        if self._completed is None:
            self.env.log.flush()  # killed from here on, no part is sent again (F07)
            self.env.crash("upload.parts_done")
            source.check()
            source.check_path()
            try:
                self._completed = store.complete_multipart(
                    task.key, self._upload_id, parts, crc=crc, size=self.size, only_if_absent=not task.ours
                )
            except NoSuchUpload:
                self._lost = True
                return None
            except Exists:
                return self.met(source)
            self.env.crash("upload.completed")
        info, found = self._completed, store.find(task.key)
        stored = Stored(task.key, self.size, info.etag, crc)
        if found is None or (found.size, found.etag) != (self.size, info.etag):
            there = f"{found.size} bytes with ETag {found.etag}" if found else "nothing"
            error = Corrupted(
                f"{task.key} was stored ({self.size} bytes, ETag {info.etag}), but the listing shows {there}",
                hint="somebody else may be writing to this key",
            )
            return Outcome(task, Verdict.FAILED, stored=stored, error=error, detail=str(error))
        return self.stored(source, stored)

    def as_completed(self, source: Source, found: ObjectInfo) -> Outcome | None:
        """STORED when the object's ETag is that of our own parts, as S3 answered them; the file isn't read again."""
        parts = [self._parts[number] for number in sorted(self._parts)]
        if len(parts) != self._count or found.size != self.size:
            return None
        if found.etag != multipart_etag([part.etag for part in parts]):
            return None
        stored = Stored(self.upload.key, found.size, found.etag, combined_crc(parts), adopted=True)
        return self.stored(source, stored)
