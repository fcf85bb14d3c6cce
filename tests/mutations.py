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
        "ncaasd/engine/submitting.py",
        "            key = order.layout.submit_key(job_id)\n",
        "            key = order.layout.submit_key(job_id)\n"
        "            store.put(key, body, crc=crc64nvme(body), only_if_absent=True)\n",
        STEPS,
    ),
    Mutation(
        "the listing before the PUT",
        "ncaasd/engine/submitting.py",
        "decision, at = _decide(order, job, store, attempted, clock.now())",
        "decision, at = Decision(Step.PUT), clock.now()",
        STEPS,
    ),
    Mutation(
        "If-None-Match on the submit",
        "ncaasd/engine/submitting.py",
        "only_if_absent=True, retry=False",
        "only_if_absent=False, retry=False",
        STEPS,
    ),
    Mutation("the attempt's commit", "ncaasd/engine/submitting.py", "        log.attempt()\n", "        pass\n", STEPS),
    Mutation(
        "the adoption",
        "ncaasd/engine/submitting.py",
        "if decision.step is Step.ADOPT:",
        "if decision.step is None:",
        STEPS,
    ),
    Mutation(
        "listing the inputs just before",
        "ncaasd/engine/submitting.py",
        "missing = _unverified(order, store, foreign, config=True)",
        "missing = None",
        STEPS,
    ),
    Mutation(
        "looking for earlier attempts in S3",
        "ncaasd/engine/submitting.py",
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
        "ncaasd/engine/opening.py",
        '"seen" if seen else "new"',
        '"new"',
        STEPS,
    ),
    Mutation(
        "the probe of the endpoint",
        "ncaasd/engine/opening.py",
        "conditional = honours_if_none_match(store, layout.probe_key())",
        "conditional = True",
        STEPS,
    ),
    Mutation(
        "keeping a changed input back while a job reads it",
        "ncaasd/engine/uploading.py",
        "        if user is not None:",
        "        if user is not None and False:",
        STEPS,
    ),
    Mutation(
        "If-None-Match on inputs",
        "ncaasd/engine/uploading.py",
        "ours=row.ours,",
        "ours=True,",
        STEPS,
    ),
    Mutation(
        "answering only after the commit",
        "ncaasd/engine/desk.py",
        "answers.append((note, _attempt(note.what)))",
        "note.finish(_attempt(note.what))",
        "tests/engine/test_desk.py",
    ),
    Mutation(
        "the fsync of each commit",
        "ncaasd/adapters/journal/opening.py",
        'db.execute("PRAGMA synchronous=FULL")',
        'db.execute("PRAGMA synchronous=NORMAL")',
        "tests/journal/test_journal.py",
    ),
    Mutation(
        "no job for a link to a file that is found by itself",
        "ncaasd/plan/files.py",
        'return bool(row.link) and not row.link.startswith("/")',
        "return False",
        "tests/declared/test_linked_recordings.py",
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
    noticed = failed[0].split(" ")[1].rpartition("::")[2] if failed else ""
    return done.returncode == 0, noticed


def main() -> int:
    survivors = 0
    with tempfile.TemporaryDirectory(prefix="ncaasd-mutations-") as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(
            TOP, tree, ignore=shutil.ignore_patterns(".git", ".ci", "*.egg-info", "__pycache__", ".*_cache")
        )
        print("| removed | noticed by |\n|---|---|")
        for mutation in MUTATIONS:
            alive, noticed = survives(mutation, tree)
            survivors += alive
            print(f"| {mutation.step} | {'**nobody**' if alive else f'`{noticed}`'} |", flush=True)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
