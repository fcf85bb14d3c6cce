"""Remove one safety step at a time, and see that a test fails. Not a test itself: `python tests/mutations.py`.

Each row: what is removed, where, by which edit, and the tests that must notice. Works on a copy of the tree. Prints the
table that docs/exactly-once.md shows; exits 1 when a step could be removed without anybody noticing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).parents[1]
STEPS = "tests/state_machine/test_steps.py"
WHOLE = "tests/declared/test_whole_units.py"
NAMES = "tests/declared/test_names.py"


@dataclass(frozen=True)
class Mutation:
    step: str
    file: str
    old: str
    new: str
    tests: str


MUTATIONS = (
    Mutation(
        "the intent's commit before the PUT",
        "ncaasd/engine/submitting/submit_once.py",
        "            key = order.layout.submit_key(job_id)\n",
        "            key = order.layout.submit_key(job_id)\n"
        "            store.put(key, body, crc=crc64nvme(body), only_if_absent=True)\n",
        STEPS,
    ),
    Mutation(
        "the listing before the PUT",
        "ncaasd/engine/submitting/submit_once.py",
        "decision, at = _decide(order, job, store, attempted, clock.now())",
        "decision, at = Decision(Step.PUT), clock.now()",
        STEPS,
    ),
    Mutation(
        "If-None-Match on the submit",
        "ncaasd/engine/submitting/submit_once.py",
        "only_if_absent=True, retry=False",
        "only_if_absent=False, retry=False",
        STEPS,
    ),
    Mutation(
        "the attempt's commit",
        "ncaasd/engine/submitting/submit_once.py",
        "        log.attempt()\n",
        "        pass\n",
        STEPS,
    ),
    Mutation(
        "the adoption",
        "ncaasd/engine/submitting/submit_once.py",
        "if decision.step is Step.ADOPT:",
        "if decision.step is None:",
        STEPS,
    ),
    Mutation(
        "listing the inputs just before",
        "ncaasd/engine/submitting/submit_once.py",
        "missing = _unverified(order, store, foreign, config=not order.shared)",
        "missing = None",
        STEPS,
    ),
    Mutation(
        "looking for earlier attempts in S3",
        "ncaasd/engine/submitting/submit_once.py",
        "        if job.attempt > 0 and not there:",
        "        if job.attempt > 0:",
        STEPS,
    ),
    Mutation(
        "the hold after 24 h of doubt",
        "ncaasd/plan/submitting.py",
        "if attempted and now - attempted > UNSURE_AFTER",
        "if False and now - attempted > UNSURE_AFTER",
        STEPS,
    ),
    Mutation(
        "the rig's marker",
        "ncaasd/engine/core/opening.py",
        '"seen" if verdict.doubtful else "new"',
        '"new"',
        STEPS,
    ),
    Mutation(
        "counting the submits that a journal begins",
        "ncaasd/adapters/journal/base.py",
        'submits = int(self.get_meta(f"submits:{analysis}") or 0) + 1',
        "submits = 1",
        STEPS,
    ),
    Mutation(
        "the count's mark before the PUT",
        "ncaasd/engine/submitting/submit_once.py",
        "        store.put(mark.key, MARK, crc=crc64nvme(MARK), only_if_absent=False)\n",
        "",
        STEPS,
    ),
    Mutation(
        "asking the marks whether the journal is an old copy",
        "ncaasd/plan/journals.py",
        "if most > memory.submits:",
        "if False:",
        STEPS,
    ),
    Mutation(
        "asking the files here what was submitted",
        "ncaasd/engine/core/opening.py",
        "jobs = self._unknown(context, look.jobs.submitted) if look.jobs else frozenset()",
        "jobs: frozenset[str] = frozenset()",
        STEPS,
    ),
    Mutation(
        "doubting what an old copy knows as not submitted",
        "ncaasd/engine/core/opening.py",
        "            journal.doubt_unended_jobs(name)\n",
        "",
        STEPS,
    ),
    Mutation(
        "the root's own name for its rig",
        "ncaasd/engine/core/opening.py",
        "rig = look.rig or runtime.rig",
        "rig = runtime.rig",
        STEPS,
    ),
    Mutation(
        "the state's name for its rig",
        "ncaasd/plan/journals.py",
        "    if remembered:\n        return remembered\n    if used:\n        return used[-1]\n",
        "",
        STEPS,
    ),
    Mutation(
        "the probe of the endpoint",
        "ncaasd/engine/core/opening.py",
        "conditional = honours_if_none_match(store, layout.probe_key())",
        "conditional = True",
        STEPS,
    ),
    Mutation(
        "keeping a changed input back while a job reads it",
        "ncaasd/engine/arriving/uploading.py",
        "        if user is not None:",
        "        if user is not None and False:",
        STEPS,
    ),
    Mutation(
        "holding a unit of which a part can't be taken",
        "ncaasd/plan/grouping.py",
        "    lacking = unit.skipped(m)\n",
        '    lacking = ""\n',
        WHOLE,
    ),
    Mutation(
        "waiting for what lies beside the data",
        "ncaasd/plan/grouping.py",
        "    return Beside(files=",
        "    return Beside() or Beside(files=",
        WHOLE,
    ),
    Mutation(
        "waiting until a unit without a gate is left alone",
        "ncaasd/plan/grouping.py",
        "return 0.0 if self.complete_when else WHOLE_AFTER * settle",
        "return 0.0",
        WHOLE,
    ),
    Mutation(
        "If-None-Match on inputs",
        "ncaasd/engine/arriving/uploading.py",
        "ours=row.ours,",
        "ours=True,",
        STEPS,
    ),
    Mutation(
        "holding what was only renamed",
        "ncaasd/plan/doubts.py",
        " or renamed(job, pieces, gone_like, jobs_using, was, given)",
        "",
        "tests/declared/test_renames.py",
    ),
    Mutation(
        "asking again, with the intent, whether it was renamed",
        "ncaasd/engine/submitting/committing.py",
        "            if not step.submit:\n",
        "            if False:\n",
        "tests/declared/test_renames.py",
    ),
    Mutation(
        "holding what NeuroCAAS could not run as it is declared",
        "ncaasd/plan/considering.py",
        "kept = _lacking(facts) or _impossible(facts) or _waiting(facts)",
        "kept = _lacking(facts) or _waiting(facts)",
        "tests/engine/test_supplies.py",
    ),
    Mutation(
        "that being held again uses up an earlier release",
        "ncaasd/plan/holds.py",
        "return job.released if hold is None else job.released - {hold}",
        "return job.released",
        "tests/plan/test_hold_kinds.py",
    ),
    Mutation(
        "holding another recording of a name whose job files here tell of",
        "ncaasd/plan/journals.py",
        "(job_id in noted or was_there(files, first_scan))",
        "was_there(files, first_scan)",
        "tests/declared/test_plan.py",
    ),
    Mutation(
        "asking whose file is at a dataset's key",
        "ncaasd/plan/files.py",
        "if other.place != place and (other.stored is not None or _has_its_key(other)):",
        "if False:",
        NAMES,
    ),
    Mutation(
        "keeping another file back while a job reads what is at its key",
        "ncaasd/engine/arriving/uploading.py",
        "known = row.stored is not None or before is not None",
        "known = row.stored is not None",
        NAMES,
    ),
    Mutation(
        "forgetting what was stored of the file that had the key",
        "ncaasd/engine/arriving/uploading.py",
        "runtime.journal.take_key(row)",
        "pass",
        NAMES,
    ),
    Mutation(
        "another id than that of the other file's job",
        "ncaasd/engine/submitting/submit_once.py",
        "        if job_id in order.others:",
        "        if False:",
        NAMES,
    ),
    Mutation(
        "answering only after the commit",
        "ncaasd/engine/core/mailbox.py",
        "answers.append((note, _attempt(note.what)))",
        "note.finish(_attempt(note.what))",
        "tests/engine/test_mailbox.py",
    ),
    Mutation(
        "the fsync of each commit",
        "ncaasd/adapters/journal/opening.py",
        'db.execute("PRAGMA synchronous=FULL")',
        'db.execute("PRAGMA synchronous=NORMAL")',
        "tests/journal/test_journal.py",
    ),
    Mutation(
        "counting an ensemble's machines before its rule's next job",
        "ncaasd/plan/guards.py",
        "return job.machines or expected_machines(job.total, each)",
        "return job.total",
        "tests/engine/test_ensemble.py",
    ),
    Mutation(
        "asking for a verdict of each machine",
        "ncaasd/neurocaas/machines.py",
        "self.machines == 1 or self.known >= self.machines",
        "True",
        "tests/engine/test_ensemble.py",
    ),
    Mutation(
        "remembering a machine's failure that was overwritten",
        "ncaasd/neurocaas/machines.py",
        "old = before.heard if same else ()",
        "old = ()",
        "tests/engine/test_ensemble.py",
    ),
    Mutation(
        "no job for a link to a file that is found by itself",
        "ncaasd/plan/files.py",
        'return bool(row.link) and not row.link.startswith("/")',
        "return False",
        "tests/declared/test_linked_recordings.py",
    ),
    Mutation(
        "waiting for its turn at a config's shared name",
        "ncaasd/plan/configs.py",
        "if reading and theirs != etag:",
        "if False:",
        "tests/declared/test_names_that_workers_open.py",
    ),
)


def survives(mutation: Mutation, tree: Path) -> tuple[bool, str]:
    """Whether the tests pass without the step; and the first test that noticed."""
    path = tree / mutation.file
    text = path.read_text()
    if text.count(mutation.old) != 1:
        raise SystemExit(f"{mutation.step}: the text to remove is {text.count(mutation.old)} times in {mutation.file}")
    path.write_text(text.replace(mutation.old, mutation.new))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header",
             "-o", "log_level=CRITICAL", "--tb=no", "-n", "0", mutation.tests],
            cwd=tree, env=os.environ | {"PYTHONPATH": str(tree)}, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
    finally:
        path.write_text(text)
    if done.returncode not in (0, 1):
        raise SystemExit(
            f"{mutation.step}: pytest ended with {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-500:]}"
        )
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    noticed = failed[0].partition("[")[0].split(" ")[1].rpartition("::")[2] if failed else ""
    return done.returncode == 0, noticed


def main() -> int:
    survivors = 0
    with tempfile.TemporaryDirectory(prefix="ncaasd-mutations-") as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(
            TOP, tree, ignore=shutil.ignore_patterns(".git", ".ci", ".venv", "*.egg-info", "__pycache__", ".*_cache")
        )
        print("| removed | noticed by |\n|---|---|")
        for mutation in MUTATIONS:
            alive, noticed = survives(mutation, tree)
            survivors += alive
            print(f"| {mutation.step} | {'**nobody**' if alive else f'`{noticed}`'} |", flush=True)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
