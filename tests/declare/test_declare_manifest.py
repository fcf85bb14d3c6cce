"""The manifests: what is read, and every problem at its line."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from declare_tables import problems
from hypothesis import given
from hypothesis import strategies as st

from ncaasd.declare.config import bandwidth_limit, load_config
from ncaasd.declare.manifest import Manifest, OneOff, PackageTool, Rule, parse_manifest
from ncaasd.declare.pages import JOBS, RULES

RULE = "rules:\n  - name: r\n    datasets: '**/*.tif'\n    config: c.yaml\n"
UNIT = RULE + "    unit: '{animal}/{date}_{run}'\n"
JOB = "jobs:\n  - name: j\n    datasets: a.tif\n    config: c.yaml\n"
BYPASS = "jobs:\n  - name: j\n    datasets: [s3://lab/d/a.tif]\n    config: s3://lab/c.yaml\n"


def read(
    text: str, *, standing: bool, sources: Collection[str] = ("rig1",), tools: Collection[str] = ("frames",)
) -> Manifest:
    return parse_manifest(text.encode(), "m.yaml", standing=standing, sources=sources, tools=tools)


def rule(more: str = "", base: str = RULE) -> Rule:
    return read(f"{base}    {more}\n", standing=True).rules[0]


def job(more: str = "", base: str = JOB) -> OneOff:
    return read(f"{base}    {more}\n", standing=False).jobs[0]


@pytest.mark.parametrize(
    ("base", "more", "key", "value"),
    [
        (RULE, "", "name", "r"),
        (RULE, "", "datasets", ("**/*.tif",)),
        (RULE, "", "config", "c.yaml"),
        (RULE, "", "exclude", ()),
        (RULE, "exclude: '**/*_preview.tif'", "exclude", ("**/*_preview.tif",)),
        (RULE, "exclude: [a, 2024-01-02]", "exclude", ("a", "2024-01-02")),
        (RULE, "", "source", None),
        (RULE, "source: rig1", "source", "rig1"),
        (UNIT, "", "unit", "{animal}/{date}_{run}"),
        (UNIT, "complete_when: [DONE, on]", "complete_when", ("DONE", "on")),
        (UNIT, "complete_when: DONE", "complete_when", ("DONE",)),
        (UNIT, "abort_when: ABORTED", "abort_when", ("ABORTED",)),
        (UNIT, "overdue: 6h", "overdue", 21600.0),
        (UNIT, "", "overdue", None),
        (UNIT, "", "package", "none"),
        (UNIT, "package: zip", "package", "zip"),
        (UNIT, "package: {tool: frames, name: '{date}_{run}.zip'}", "package",
         PackageTool(tool="frames", name="{date}_{run}.zip")),
        (UNIT, "job_per: unit", "job_per", "unit"),
        (RULE, "", "job_per", "dataset"),
        (RULE, "set: {fr: 30, on: no, d: 2024-01-02, x: '30', y: 1.5, z: true}", "set",
         {"fr": 30, "on": "no", "d": "2024-01-02", "x": "30", "y": 1.5, "z": True}),
        (UNIT, "set: {who: {name: '{animal}'}, __duration__: 240}", "set", {"who": {"name": "{animal}"}, "__duration__": 240}),
        (RULE, "set: {text: '{animal} stays without a unit'}", "set", {"text": "{animal} stays without a unit"}),
        (RULE, "set:", "set", {}),
        (RULE, "instance_type: p3.2xlarge", "instance_type", "p3.2xlarge"),
        (RULE, "instance_type: null", "instance_type", None),
        (RULE, "", "rerun_on", ()),
        (RULE, "rerun_on: data", "rerun_on", ("data",)),
        (RULE, "rerun_on: [data, config]", "rerun_on", ("data", "config")),
        (RULE, "canary: 1", "canary", 1),
        (RULE, "", "canary", 0),
        (UNIT.replace("c.yaml", "'{animal}.yaml'"), "", "config", "{animal}.yaml"),
        (RULE.replace("name: r", "name: 20240102_01"), "", "name", "20240102_01"),
        (RULE.replace("name: r", "name: 2024-01-02"), "", "name", "2024-01-02"),
        (RULE.replace("name: r", "name: no"), "", "name", "no"),
    ],
)  # fmt: skip
def test_rules(base: str, more: str, key: str, value: object) -> None:
    found = getattr(rule(more, base), key)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("base", "more", "key", "value"),
    [
        (JOB, "", "name", "j"),
        (JOB, "", "datasets", ("a.tif",)),
        (JOB.replace("a.tif", "[x/a.tif, müll/b c.tif, a[1].tif]"), "", "datasets", None),
        (JOB.replace("a.tif", "['x/a.tif', 'müll/b c.tif', 'a[1].tif']"), "", "datasets",
         ("x/a.tif", "müll/b c.tif", "a[1].tif")),
        (JOB.replace("a.tif", "19:00"), "", "datasets", ("19:00",)),
        (JOB, "", "resultpath", None),
        (JOB, "instance_type: g4dn.xlarge", "instance_type", "g4dn.xlarge"),
        (JOB, "set: {__dataset_size__: 500}", "set", {"__dataset_size__": 500}),
        (JOB, "", "bypass", False),
        (BYPASS, "", "bypass", True),
        (BYPASS, "resultpath: s3://lab/out/", "resultpath", "s3://lab/out"),
        (JOB.replace("c.yaml", "c.json"), "", "config", "c.json"),
    ],
)  # fmt: skip
def test_one_off_jobs(base: str, more: str, key: str, value: object) -> None:
    if value is None and key == "datasets":
        assert problems(lambda: job(more, base)), "a set of brackets in a list without quotes is no text"
        return
    assert getattr(job(more, base), key) == value


@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        (RULE + "    dataset: x", 5, "rules[0].dataset", "is datasets meant?"),
        (RULE + "    job_per: file", 5, "rules[0].job_per", "must be one of dataset or unit"),
        (RULE.replace("name: r", "name: a b"), 2, "rules[0].name", "must be a name"),
        (RULE.replace("name: r", "name: ../x"), 2, "rules[0].name", "must be a name"),
        (RULE.replace("name: r", "name:"), 2, "rules[0].name", "has no value"),
        (RULE.replace("'**/*.tif'", "[]"), 3, "rules[0].datasets", "must not be empty"),
        (RULE.replace("'**/*.tif'", "/etc/*"), 3, "rules[0].datasets", "absolute path"),
        (RULE.replace("'**/*.tif'", "C:/x"), 3, "rules[0].datasets", "absolute path"),
        (RULE.replace("'**/*.tif'", "[a, b/../../c]"), 3, "rules[0].datasets[1]", "must not contain .."),
        (RULE.replace("'**/*.tif'", "a\\b"), 3, "rules[0].datasets", "must have / between folders"),
        (RULE.replace("'**/*.tif'", "inputs/a"), 3, "rules[0].datasets", "leave inputs/ out"),
        (RULE.replace("'**/*.tif'", "s3://b/a"), 3, "rules[0].datasets", "one-off job"),
        (RULE.replace("c.yaml", "c.yml"), 4, "rules[0].config", "must end in .yaml: NeuroCAAS knows no .yml"),
        (RULE.replace("c.yaml", "c.YAML"), 4, "rules[0].config", "must end in .yaml"),
        (RULE.replace("c.yaml", "c.txt"), 4, "rules[0].config", "must end in .yaml or .json"),
        (RULE.replace("c.yaml", "../c.yaml"), 4, "rules[0].config", "must not contain .."),
        (RULE.replace("c.yaml", "configs/c.yaml"), 4, "rules[0].config", "leave configs/ out"),
        (RULE.replace("c.yaml", "submit.json"), 4, "rules[0].config", "submit.json"),
        (RULE.replace("c.yaml", "s3://b/c.yaml"), 4, "rules[0].config", "one-off job"),
        (
            RULE.replace("c.yaml", "'{animal}.yaml'"),
            4,
            "rules[0].config",
            "{animal} is no part of the unit (there is no `unit`)",
        ),
        (
            UNIT.replace("c.yaml", "'{anmal}.yaml'"),
            4,
            "rules[0].config",
            "{anmal} is no part of the unit (animal, date, run)",
        ),
        (RULE + "    source: rig2", 5, "rules[0].source", "`sources` (rig1)"),
        (RULE + "    unit: '{a}{b}'", 5, "rules[0].unit", "nothing between them"),
        (RULE + "    unit: '{a}_{a}'", 5, "rules[0].unit", "twice in one folder"),
        (RULE + "    unit: raw", 5, "rules[0].unit", "at least one part"),
        (RULE + "    unit: '*/{a}'", 5, "rules[0].unit", "no *"),
        (RULE + "    unit: '{a b}/{c}'", 5, "rules[0].unit", "other braces"),
        (RULE + "    unit: '/{a}'", 5, "rules[0].unit", "absolute"),
        (RULE + "    complete_when: DONE", 5, "rules[0].complete_when", "needs `unit`"),
        (RULE + "    abort_when: X", 5, "rules[0].abort_when", "needs `unit`"),
        (RULE + "    overdue: 6h", 5, "rules[0].overdue", "needs `unit`"),
        (RULE + "    job_per: unit", 5, "rules[0].job_per", "needs `unit`"),
        (RULE + "    package: zip", 5, "rules[0].package", "needs `unit`"),
        (UNIT + "    package: tar", 6, "rules[0].package", "must be one of none or zip"),
        (UNIT + "    package: {tool: rm, name: '{run}.zip'}", 6, "rules[0].package.tool", "`tools` (frames)"),
        (UNIT + "    package: {tool: frames}", 6, "rules[0].package.name", "is missing"),
        (UNIT + "    package: {tool: frames, name: x.zip}", 6, "rules[0].package.name", "must have a part of the unit"),
        (UNIT + "    package: {tool: frames, name: '/{run}'}", 6, "rules[0].package.name", "absolute"),
        (UNIT + "    package: {tool: frames, nme: x, name: '{run}'}", 6, "rules[0].package.nme", "is name meant?"),
        (UNIT + "    set: {x: [ok, '{anmal}']}", 6, "rules[0].set.x[1]", "no part of the unit"),
        (RULE + "    set: {__duration__: '240'}", 5, "rules[0].set.__duration__", "whole number of minutes"),
        (RULE + "    set: {__duration__: 1.5}", 5, "rules[0].set.__duration__", "whole number of minutes"),
        (RULE + "    set: {__dataset_size__: true}", 5, "rules[0].set.__dataset_size__", "whole number of GB"),
        (RULE + "    set: {x: {y: .nan}}", 5, "rules[0].set.x.y", "must be finite"),
        (RULE + "    set: fr", 5, "rules[0].set", "keys and values"),
        (RULE + "    set: [1]", 5, "rules[0].set", "keys and values"),
        (RULE + "    instance_type: big", 5, "rules[0].instance_type", "such as p3.2xlarge"),
        (RULE + "    rerun_on: [dat]", 5, "rules[0].rerun_on[0]", "is data meant?"),
        (RULE + "    canary: -1", 5, "rules[0].canary", "whole number"),
        (
            RULE + "  - {name: r, datasets: b, config: c.yaml}",
            5,
            "rules[1].name",
            "is the name of another one too (line 2)",
        ),
        (RULE + "    config: d.yaml", 5, "rules[0].config", "here twice"),
        (RULE + "jobs: []", 5, "jobs", "submissions/"),
        ("rules: {name: r}", 1, "rules", "must be a list"),
        ("- name: r", 1, "", "found a list"),
        ("rule: []\nrules: []", 1, "rule", "is rules meant?"),
        ("# nothing", 0, "", "is empty"),
        (RULE.replace("config: c.yaml", "x: &a {}\n    config: *a"), 4, "", ""),
    ],
)
def test_one_problem_of_a_rule(text: str, line: int, key: str, words: str) -> None:
    found = problems(lambda: read(text, standing=True))
    if not words:  # two at once, one of them through an alias
        assert [f[2] for f in found] == ["rules[0].x", "rules[0].config"]
        return
    assert [f[::2] for f in found] == [(line, key)]
    assert words in found[0][3]


@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        (JOB.replace("a.tif", "'*.tif'"), 3, "jobs[0].datasets", "patterns belong in a rule"),
        (JOB.replace("a.tif", "/etc/passwd"), 3, "jobs[0].datasets", "absolute path"),
        (JOB.replace("a.tif", "x/../../a"), 3, "jobs[0].datasets", "must not contain .."),
        (JOB.replace("a.tif", "inputs/a.tif"), 3, "jobs[0].datasets", "leave inputs/ out"),
        (JOB.replace("a.tif", "mysubmit.json"), 3, "jobs[0].datasets", "NeuroCAAS would start or end a job"),
        (JOB.replace("a.tif", "x/end.txt"), 3, "jobs[0].datasets", "NeuroCAAS would start or end a job"),
        (JOB.replace("a.tif", "[x/a.tif, y/a.tif]"), 3, "jobs[0].datasets[1]", "has the file name of x/a.tif"),
        (BYPASS.replace("[s3", "[b.tif, s3"), 3, "jobs[0].datasets", "must all be s3://"),
        (JOB.replace("a.tif", "s3://lab/b.tif"), 4, "jobs[0].config", "must be s3:// too"),
        (JOB.replace("c.yaml", "s3://lab/c.yaml"), 3, "jobs[0].datasets", "must all be s3://"),
        (JOB.replace("c.yaml", "c.yml"), 4, "jobs[0].config", "rename the file"),
        (JOB + "    set: {__dataset_size__: 0.5}", 5, "jobs[0].set.__dataset_size__", "whole number of GB"),
        (JOB + "    resultpath: out", 5, "jobs[0].resultpath", "must be s3://"),
        (BYPASS.replace("s3://lab/c", "s3://other/c"), 3, "jobs[0].datasets", "in one bucket"),
        (BYPASS.replace("lab/d/a.tif", "lab/d/a b.tif"), 3, "jobs[0].datasets[0]", "rename in S3"),
        (BYPASS.replace("lab/d/a.tif", "lab/d/$(x).tif"), 3, "jobs[0].datasets[0]", "rename in S3"),
        (BYPASS.replace("s3://lab/d/a.tif", "s3://lab"), 3, "jobs[0].datasets[0]", "must be s3://bucket/key"),
        (BYPASS + "    set: {a: 1}", 5, "jobs[0].set", "in S3 already"),
        (JOB + "rules: []", 5, "rules", "manifest.yaml"),
        (JOB + "  - {name: j, datasets: b, config: c.yaml}", 5, "jobs[1].name", "another one too (line 2)"),
        (JOB + "    unit: '{a}'", 5, "jobs[0].unit", "is not a key here"),
    ],
)
def test_one_problem_of_a_one_off_job(text: str, line: int, key: str, words: str) -> None:
    found = problems(lambda: read(text, standing=False))
    assert [f[::2] for f in found] == [(line, key)]
    assert words in found[0][3]


def test_all_problems_of_all_rules_are_said_at_once() -> None:
    text = (
        "rules:\n- {name: a b, datasets: /x, config: c.yml}\n- 7\n- {nme: x}\n"
        "- {name: d, datasets: x, config: '{x}.yaml', job_per: unit, set: {__duration__: a}}\n"
        "- {name: d, datasets: [], config: c.yaml, source: nope}\n"
    )
    assert [f[::2] for f in problems(lambda: read(text, standing=True))] == [
        (2, "rules[0].name"),
        (2, "rules[0].datasets"),
        (2, "rules[0].config"),
        (3, "rules[1]"),
        (4, "rules[2].name"),
        (4, "rules[2].datasets"),
        (4, "rules[2].config"),
        (4, "rules[2].nme"),
        (5, "rules[3].config"),
        (5, "rules[3].job_per"),
        (5, "rules[3].set.__duration__"),
        (6, "rules[4].name"),
        (6, "rules[4].datasets"),
        (6, "rules[4].source"),
    ]


def test_f68_a_bad_manifest_among_good_ones_stops_none_of_them() -> None:
    """Nothing is kept between two files: good ones are read alike before and after every bad one."""
    bad = [
        b"rules: [",
        b"\xff",
        b"a: &a [*a]",
        b"[" * 999,
        b"rules: [{name: r}, {name: r}]",
        b"rules: 1",
        b"!!x y",
        b"a: 1\na: 2",
    ]
    first = read(RULES, standing=True)
    for data in bad:
        assert problems(lambda: parse_manifest(data, "bad", standing=True, sources=[], tools=[]))  # noqa: B023 - called at once
        assert read(RULES, standing=True) == first


def test_the_examples_of_the_page_are_read() -> None:
    assert read(RULES, standing=True).rules[0].set == {"fr": 30, "__duration__": 240}
    assert [one.bypass for one in read(JOBS, standing=False).jobs] == [False, True]


def test_the_products_page_is_read_to_the_letter() -> None:
    """Every key that the product promises, as it was promised."""
    files = Path(__file__).with_name("files")
    config = load_config((files / "config.yaml").read_bytes(), "config.yaml")
    assert bandwidth_limit(config.upload.bandwidth, 12 * 60) == 10**7
    (rule,) = read((files / "rules.yaml").read_text(), standing=True).rules
    came_later = {"whole_after", "beside", "config_name", "key"}
    assert set(rule.model_fields_set) == set(Rule.model_fields) - came_later
    one, two = read((files / "jobs.yaml").read_text(), standing=False).jobs
    assert one.model_fields_set | two.model_fields_set | {"instance_type", "set"} == set(OneOff.model_fields)


def test_a_program_may_make_a_rule() -> None:
    made: dict[str, Any] = {"name": "r", "datasets": ["*.tif"], "config": "c.yaml"}
    assert Rule(**made) == Rule.model_validate({**made, "overdue": None})


_KEYS = """rules jobs name datasets config unit set package tool source {a} {a}/{b} [x] {x:y} {name:r} .nan 1 s3://a/b c.yaml
unit canary -1 ../x /x ~ null <<"""
_words = st.sampled_from(_KEYS.split())
_trees = st.recursive(
    _words,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(st.tuples(_words, inner), max_size=5).map(
            lambda pairs: f"{{{', '.join(f'{k}: {v}' for k, v in pairs)}}}"
        )
    ),
    max_leaves=12,
)


@given(_trees, st.booleans())
def test_no_tree_raises_anything_else(tree: str, standing: bool) -> None:
    problems(lambda: read(tree, standing=standing))
    problems(lambda: read(f"{'rules' if standing else 'jobs'}: [{tree}]", standing=standing))


@given(st.binary(max_size=100), st.booleans())
def test_no_bytes_raise_anything_else(data: bytes, standing: bool) -> None:
    problems(lambda: parse_manifest(data, "x", standing=standing, sources=[], tools=[]))
