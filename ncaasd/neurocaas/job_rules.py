"""The checks of a job before anything of it is put: each rule's sentence names the trap that it guards against.

Rules: NeuroCAAS protocol, docs/neurocaas.md ("Names", "Storage bypass", "Traps").
"""

from __future__ import annotations

import re
from collections import Counter

from ncaasd.neurocaas.addresses import is_address, split_checked
from ncaasd.neurocaas.naming import ID, Layout, id_fits, key_problems, too_long
from ncaasd.neurocaas.submit_body import SubmitBody, basename
from ncaasd.neurocaas.text import shown

CONFIG_ENDINGS = (".yaml", ".json")
_INSTANCE = re.compile(r"[a-z0-9-]+\.[a-z0-9-]+")
_SHELL = re.compile(r"[^A-Za-z0-9._/:=+,@%-]")


def validate_job(body: SubmitBody, layout: Layout) -> list[str]:
    """Everything wrong with a job, in sentences for people that name the trap; empty when it may be submitted."""
    problems = [] if body.datanames else ["it names no dataset"]
    problems += _id_problems(body.timestamp, layout)
    if body.instance_type is not None and not _INSTANCE.fullmatch(body.instance_type):
        problems.append(
            f"instance_type {shown(body.instance_type)} is not of the form m5.xlarge: NeuroCAAS could not tell its cost, "
            "and would reject the job"
        )
    problems += _collisions(body)
    problems += config_name_problems(body.configname)
    problems += _bypass_problems(body) if body.bypass else _home_problems(body, layout)
    if body.resultpath is not None:
        problems += _resultpath_problems(body.resultpath)
    return problems


def _id_problems(job_id: str, layout: Layout) -> list[str]:
    problems = []
    if not ID.fullmatch(job_id):
        problems.append(
            f"its id {job_id!a} is not of letters, digits and . _ - only: it is the name of a folder and of an AWS rule"
        )
    if not id_fits(layout.bucket, job_id):
        problems.append(f"its id {too_long(layout.bucket, job_id)}")
    if key_problems(layout.group):
        problems.append(
            f"the group {layout.group!a} is not of letters, digits and . _ - only: NeuroCAAS never starts a job whose submit "
            "file's key holds others, and says nothing"
        )
    return problems


def _collisions(body: SubmitBody) -> list[str]:
    """F66: logs are named by base name, and results of all datasets go into one flat folder."""
    problems = []
    for name, count in Counter(body.basenames).items():
        if count > 1:
            full = ", ".join(shown(data) for data in body.datanames if basename(data) == name)
            problems.append(
                f"{count} datasets have the base name {shown(name)} ({full}): NeuroCAAS names logs by it and puts all results "
                "into one folder, so they would overwrite each other; give each a job of its own"
            )
    return problems


def config_name_problems(name: str) -> list[str]:
    """A config's ending must be `.yaml` or `.json`, exactly so."""
    if name.endswith(CONFIG_ENDINGS):
        return []
    base = basename(name)
    advice = "rename it to .yaml" if base.lower().endswith((".yml", ".yaml")) else "rename it to what it is"
    return [
        f"the config {shown(base)} does not end in .yaml or .json (in small letters): NeuroCAAS reads no other; {advice}"
    ]


def _home_problems(body: SubmitBody, layout: Layout) -> list[str]:
    problems = []
    for name in body.datanames:
        if not name.startswith(layout.inputs):
            problems.append(
                f"the dataset {shown(name)} is not below {layout.inputs}: NeuroCAAS would never end such a job"
            )
        problems += [f"the dataset {shown(name)} cannot be used: {problem}" for problem in key_problems(name)]
    config = body.configname
    if not config.startswith(layout.configs):
        problems.append(f"the config {shown(config)} is not below {layout.configs}, where configs are kept")
    problems += [f"the config {shown(config)} cannot be used: {problem}" for problem in key_problems(config)]
    return problems


def _bypass_problems(body: SubmitBody) -> list[str]:
    """Storage bypass: s3:// on data and config both, all of one bucket."""
    problems = []
    buckets, folders = set(), set()
    for what, name in [*(("dataset", name) for name in body.datanames), ("config", body.configname)]:
        found = split_checked(name)
        if not is_address(name):
            problems.append(
                f"the {what} {shown(name)} is no s3:// address: data and config must both be, or NeuroCAAS finds neither"
            )
        elif found is None or not found[1] or found[1].endswith("/"):
            problems.append(f"the {what} {shown(name)} is not of the form s3://bucket/key")
        else:
            buckets.add(found[0])
            problems += _shell_problems(what, name)
            if what == "dataset":
                folders.add(found[1].partition("/")[0])
    if len(buckets) > 1:
        problems.append(
            f"data and config are in several buckets ({', '.join(sorted(buckets))}): NeuroCAAS takes the first dataset's "
            "bucket for all of them; copy them into one, or make several jobs"
        )
    if len(folders) > 1 and body.resultpath is None:
        problems.append(
            f"its datasets lie in several top folders ({', '.join(sorted(map(shown, folders)))}): without resultpath NeuroCAAS "
            "puts each one's results there, scattered; give a resultpath, or make several jobs"
        )
    return problems


def _resultpath_problems(path: str) -> list[str]:
    found = split_checked(path)
    if found is None or not found[1].strip("/"):
        message = (
            f"resultpath {shown(path)} is not of the form s3://bucket/folder: NeuroCAAS dies of a path without s3://, and "
            "never ends a job whose results go to the top of a bucket"
        )
        return [message]
    if "" in found[1].removesuffix("/").split("/"):
        return [f"resultpath {shown(path)} has an empty folder name in it (two slashes)"]
    return _shell_problems("resultpath", path)


def _shell_problems(what: str, name: str) -> list[str]:
    """F75."""
    bad = "".join(sorted(set(_SHELL.findall(name))))
    if not bad:
        return []
    return [
        f"the {what} {shown(name)} has {bad!a} in it: NeuroCAAS puts names into a shell line, where that breaks or does harm"
    ]
