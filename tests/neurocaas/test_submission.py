"""Submit files: their bytes, what is refused and why, and where a job's artefacts lie."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncaasd.errors import DeclarationError
from ncaasd.neurocaas.addresses import split_checked
from ncaasd.neurocaas.naming import Layout
from ncaasd.neurocaas.submission import (
    S3Place,
    SubmitBody,
    artefacts,
    is_result,
    parse_submit,
    validate_job,
)

LAYOUT = Layout("caiman-ncap-web", "wardlab")
ID = "314159265358979"
HOME = SubmitBody(("wardlab/inputs/m1/a.tif",), "wardlab/configs/c-8201b08d.yaml", ID)
BYPASS = SubmitBody(("s3://ward-public/night/inputs/a.tif",), "s3://ward-public/night/c.yaml", ID)
FILE = "night-submit.json"

# The bytes


HOME_BYTES = b"""{
 "dataname": [
  "wardlab/inputs/m1/a.tif"
 ],
 "configname": "wardlab/configs/c-8201b08d.yaml",
 "timestamp": "314159265358979"
}
"""
BYPASS_BYTES = b"""{
 "dataname": [
  "s3://ward-public/night/inputs/a.tif"
 ],
 "configname": "s3://ward-public/night/c.yaml",
 "timestamp": "314159265358979",
 "instance_type": "m5.xlarge",
 "resultpath": "s3://out/x"
}
"""


@pytest.mark.parametrize(
    ("body", "rendered"),
    [
        (HOME, HOME_BYTES),
        (replace(BYPASS, instance_type="m5.xlarge", resultpath="s3://out/x"), BYPASS_BYTES),
    ],
)
def test_the_exact_bytes(body: SubmitBody, rendered: bytes) -> None:
    """They must never change: a submit file is known again by its ETag."""
    assert body.render() == rendered


@given(
    st.builds(
        SubmitBody,
        st.lists(st.text(min_size=1), min_size=1, max_size=4).map(tuple),
        st.text(min_size=1),
        st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True),
        st.none() | st.text(min_size=1),
        st.none() | st.text(min_size=1),
    )
)
def test_what_is_rendered_is_read_again(body: SubmitBody) -> None:
    rendered = body.render()
    assert parse_submit(rendered, FILE) == body
    assert rendered.isascii()
    assert json.loads(rendered)["dataname"] == list(body.datanames)


# Files that people write


@pytest.mark.parametrize(
    ("text", "body"),
    [
        (
            '{"dataname": "g/inputs/a.tif", "configname": "g/configs/c.yaml", "timestamp": "t1"}',
            SubmitBody(("g/inputs/a.tif",), "g/configs/c.yaml", "t1"),
        ),
        (
            '{"dataname": ["a", "b"], "configname": "c", "timestamp": 20310305, "submitname": "ignored", "x": {"timestamp": 0}}',
            SubmitBody(("a", "b"), "c", "20310305"),
        ),
        (
            '{"resultpath": "s3://b/x", "instance_type": "m5.large", "timestamp": "t", "configname": "c", "dataname": ["a"]}',
            SubmitBody(("a",), "c", "t", "m5.large", "s3://b/x"),
        ),
    ],
)
def test_read(text: str, body: SubmitBody) -> None:
    assert parse_submit(text.encode(), FILE) == body


GOOD = '"dataname": "a", "configname": "c", "timestamp": "t"'


@pytest.mark.parametrize(
    ("data", "problems"),
    [
        ("", ["night-submit.json: it is empty"]),
        ("   \n", ["night-submit.json: it is empty"]),
        ("[1]", ["night-submit.json:1:1: it holds a list"]),
        ("null", ["night-submit.json:1:1: it holds nothing (null)"]),
        ('{\n "dataname": "a",\n}', ["night-submit.json:3:1: it is not JSON"]),
        (b"\xef\xbb\xbf{}", ["night-submit.json:1:1: it begins with a byte order mark"]),
        (b'{"dataname":\n"\xe4"}', ["night-submit.json:2:1: it is not UTF-8"]),
        ("[" * 200_000, ["it is nested too deeply"]),
        (f'{{{GOOD}, "x": NaN}}', ["NaN is no number"]),
        ("9" * 10_000, ["it is not JSON"]),
        (b" " * (1024**2 + 1), ["it has 1048577 bytes"]),
        ("{}", ["dataname: it is missing", "configname: it is missing", "timestamp: it is missing"]),
        # each type that is not the right one
        ('{"dataname": null, "configname": "c", "timestamp": "t"}', ["dataname: nothing (null) was found"]),
        ('{"dataname": 5, "configname": "c", "timestamp": "t"}', ["dataname: a number was found"]),
        ('{"dataname": {}, "configname": "c", "timestamp": "t"}', ["dataname: a mapping was found"]),
        ('{"dataname": [], "configname": "c", "timestamp": "t"}', ["dataname: it names no dataset"]),
        ('{"dataname": "", "configname": "c", "timestamp": "t"}', ["dataname: number 1 is an empty text"]),
        (
            '{"dataname": ["a", 1, "", null], "configname": "c", "timestamp": "t"}',
            ["number 2 is a number", "number 3 is an empty text", "number 4 is nothing (null)"],
        ),
        ('{"dataname": "a", "configname": ["c"], "timestamp": "t"}', ["configname: a list was found"]),
        ('{"dataname": "a", "configname": "", "timestamp": "t"}', ["configname: an empty text was found"]),
        ('{"dataname": "a", "configname": "c", "timestamp": true}', ["timestamp: true or false was found"]),
        ('{"dataname": "a", "configname": "c", "timestamp": 1.5}', ["timestamp: a number was found"]),
        ('{"dataname": "a", "configname": "c", "timestamp": null}', ["timestamp: nothing (null) was found"]),
        (
            '{"dataname": "a", "configname": "c", "timestamp": "2031-01-01T00:00"}',
            ["timestamp: '2031-01-01T00:00' was found"],
        ),
        ('{"dataname": "a", "configname": "c", "timestamp": ""}', ["timestamp: '' was found"]),
        ('{"dataname": "a", "configname": "c", "timestamp": -5}', None),
        (f'{{{GOOD}, "instance_type": null}}', ["instance_type: nothing (null) was found"]),
        (f'{{{GOOD}, "resultpath": 5}}', ["resultpath: a number was found"]),
        # a key twice, also written otherwise; in an inner mapping it is none of ours
        (f'{{{GOOD},\n  "dat\\u0061name": "b"}}', ["night-submit.json:2:3: dataname: this key is here twice"]),
        (f'{{{GOOD}, "x": {{"a": 1, "a": 2}}}}', None),
        # all at once, in the order of the file
        (
            '{\n "timestamp": [],\n "dataname": 3,\n\n "configname": 4\n}',
            [
                "night-submit.json:2:2: timestamp",
                "night-submit.json:3:2: dataname",
                "night-submit.json:5:2: configname",
            ],
        ),
    ],
)
def test_every_mistake_is_named_with_its_line(data: str | bytes, problems: list[str] | None) -> None:
    raw = data.encode() if isinstance(data, str) else data
    if problems is None:
        parse_submit(raw, FILE)
        return
    with pytest.raises(DeclarationError) as caught:
        parse_submit(raw, FILE)
    found = [str(problem) for problem in caught.value.problems]
    assert len(found) == len(problems), found
    assert all(expected in problem for expected, problem in zip(problems, found, strict=True)), found


def test_the_websites_own_name_is_refused() -> None:
    with pytest.raises(DeclarationError, match="overwritten by NeuroCAAS's website"):
        parse_submit(HOME.render(), "submissions/submit.json")


def test_F64_a_timestamp_that_is_too_long_for_the_bucket() -> None:
    body = f'{{"dataname": "a", "configname": "c", "timestamp": "{"t" * 37}"}}'.encode()
    assert parse_submit(body, FILE).timestamp == "t" * 37
    with pytest.raises(DeclarationError, match="37 characters, 36 are allowed for caiman-ncap-web"):
        parse_submit(body, FILE, bucket="caiman-ncap-web")


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with pytest.raises(DeclarationError):
        parse_submit(data, FILE)


def test_F67_a_file_of_many_keys_is_refused_in_no_time() -> None:
    data = ("{" + ",\n".join(f'"{number}": 0' for number in range(70_000)) + "}").encode()
    begun = time.process_time()
    with pytest.raises(DeclarationError):
        parse_submit(data, FILE)
    assert time.process_time() - begun < 2


# The rules


def change(**fields: object) -> SubmitBody:
    return replace(HOME, **fields)


def away(**fields: object) -> SubmitBody:
    return replace(BYPASS, **fields)


@pytest.mark.parametrize(
    ("body", "problems"),
    [
        (HOME, []),
        (change(instance_type="p3.2xlarge", resultpath="s3://ward-out/x"), []),
        (change(datanames=("wardlab/inputs/m1/a.tif", "wardlab/inputs/m1/b.tif")), []),
        (change(configname="wardlab/configs/c.json"), []),
        (change(datanames=()), ["names no dataset"]),
        # F66
        (
            change(datanames=("wardlab/inputs/m1/a.tif", "wardlab/inputs/m2/a.tif")),
            ["2 datasets have the base name a.tif (wardlab/inputs/m1/a.tif, wardlab/inputs/m2/a.tif)"],
        ),
        (change(datanames=("wardlab/inputs/a.tif",) * 3), ["3 datasets have the base name a.tif"]),
        # F64
        (change(timestamp="1" * 36), []),
        (change(timestamp="1" * 37), ["37 characters, 36 are allowed"]),
        (change(timestamp="a:b"), ["its id 'a:b' is not of letters"]),
        (change(timestamp=""), ["its id '' is not of letters"]),
        # configs
        (change(configname="wardlab/configs/c.yml"), ["c.yml does not end in .yaml or .json (in small letters)"]),
        (change(configname="wardlab/configs/c.YAML"), ["rename it to .yaml"]),
        (change(configname="wardlab/configs/c.txt"), ["c.txt does not end in .yaml or .json"]),
        (change(configname="wardlab/configs/c"), ["c does not end in .yaml or .json"]),
        (change(configname="wardlab/inputs/c.yaml"), ["not below wardlab/configs/"]),
        (change(configname="wardlab/configs/my submit.json"), ["ends in submit.json", "shell line"]),
        # datasets
        (change(datanames=("wardlab/results/x/a.tif",)), ["not below wardlab/inputs/: NeuroCAAS would never end such a job"]),
        (change(datanames=("inputs/a.tif",)), ["not below wardlab/inputs/"]),
        (change(datanames=("wardlab/inputs/",)), ["empty folder"]),
        (change(datanames=("wardlab/inputs/a b.tif",)), ["' ' in it: NeuroCAAS puts names into a shell line"]),
        (change(datanames=("wardlab/inputs/submit.json",)), ["ends in submit.json"]),
        (change(datanames=("wardlab/inputs/inputs2/a.tif",)), ["begins with inputs"]),
        # instance types
        (change(instance_type="big"), ["big is not of the form m5.xlarge"]),
        (change(instance_type=""), ["is not of the form m5.xlarge"]),
        (change(instance_type="m5.xlarge; reboot"), ["is not of the form m5.xlarge"]),
        # storage bypass
        (BYPASS, []),
        (away(resultpath="s3://ward-out/night/"), []),
        (away(datanames=("s3://ward-public/x=1,y+2/a@b%20c.tif",)), []),  # names of others, harmless in a shell line
        (away(configname="wardlab/configs/c.yaml"), ["the config wardlab/configs/c.yaml is no s3:// address"]),
        (away(datanames=("wardlab/inputs/a.tif",)), ["the dataset wardlab/inputs/a.tif is no s3:// address"]),
        (away(datanames=(BYPASS.datanames[0], "wardlab/inputs/b.tif")), ["the dataset wardlab/inputs/b.tif is no s3://"]),
        (away(configname="s3://ward-other/c.yaml"), ["several buckets (ward-other, ward-public)"]),
        (away(datanames=(BYPASS.datanames[0], "s3://ward-other/night/b.tif")), ["several buckets (ward-other, ward-public)"]),
        (away(datanames=("s3://ward-public",)), ["not of the form s3://bucket/key"]),
        (away(datanames=("s3://ward-public/night/",)), ["not of the form s3://bucket/key"]),
        (away(datanames=("s3://Ward_Public/a.tif",)), ["not of the form s3://bucket/key"]),
        (away(datanames=("s3://ward-public/night/$(x).tif",)), ["shell line"]),
        (away(datanames=("s3://ward-public/night/a b.tif",)), ["' ' in it"]),
        (away(configname="s3://ward-public/night/c.yml"), ["rename it to .yaml"]),
        (
            away(datanames=("s3://ward-public/d1/a.tif", "s3://ward-public/d2/a.tif")),
            ["the base name a.tif", "several top folders (d1, d2)"],
        ),
        (away(datanames=("s3://ward-public/d1/a.tif", "s3://ward-public/d2/b.tif"), resultpath="s3://ward-out/x"), []),
        # where results go
        (change(resultpath="ward-out/x"), ["ward-out/x is not of the form s3://bucket/folder"]),
        (change(resultpath="s3://ward-out"), ["not of the form s3://bucket/folder"]),
        (change(resultpath="s3://ward-out/"), ["not of the form s3://bucket/folder"]),
        (change(resultpath="s3://ward-out/a//b"), ["empty folder name"]),
        (change(resultpath="s3://ward-out//a"), ["empty folder name"]),
        (change(resultpath="s3://ward-out/a//"), ["empty folder name"]),
        (change(resultpath="s3://ward-out/a b"), ["shell line"]),
    ],
)  # fmt: skip
def test_F64_F65_F66_F75_the_rules(body: SubmitBody, problems: list[str]) -> None:
    found = validate_job(body, LAYOUT)
    assert len(found) == len(problems), found
    assert all(expected in problem for expected, problem in zip(problems, found, strict=True)), found


@pytest.mark.parametrize("group", ["", "ward lab", "w\u00e4rd", "ward+lab"])
def test_a_group_whose_jobs_never_start(group: str) -> None:
    layout = Layout("caiman-ncap-web", group)
    body = SubmitBody((f"{group}/inputs/a.tif",), f"{group}/configs/c.yaml", ID)
    assert any(
        "NeuroCAAS never starts a job whose submit file's key holds others" in p for p in validate_job(body, layout)
    )


@given(
    st.text(max_size=12),
    st.text(max_size=12),
    st.text(max_size=12),
    st.sampled_from(["", "s3://b-b/", "wardlab/inputs/"]),
)
def test_any_name_is_judged_in_printable_words(data: str, config: str, result: str, prefix: str) -> None:
    body = SubmitBody((prefix + data, data), prefix + config, result, data, prefix + result)
    assert all(problem.isprintable() for problem in validate_job(body, LAYOUT))


# Where artefacts lie


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("s3://ward-out/a/b", ("ward-out", "a/b")),
        ("s3://ward-out", ("ward-out", "")),
        ("s3://ward-out/", ("ward-out", "")),
        ("s3:///a", None),
        ("s3://W/a", None),
        ("https://ward-out/a", None),
        ("ward-out/a", None),
    ],
)
def test_split_checked(url: str, parts: tuple[str, str] | None) -> None:
    assert split_checked(url) == parts


JOB = f"job__caiman-ncap-web_{ID}"
AT_HOME = f"caiman-ncap-web wardlab/results/{JOB}"
ELSEWHERE = f"ward-out night/{JOB}"
UNREAD = f"caiman-ncap-web night/{JOB}"  # the analysis's bucket at the same path, where our key may not read
BESIDE = f"ward-public night/results/{JOB}"


@pytest.mark.parametrize(
    ("body", "logs", "results", "marker", "readable", "stub", "blind"),
    [
        (HOME, AT_HOME, AT_HOME, AT_HOME, True, None, False),
        # all elsewhere; the end marker at that path in the analysis's bucket, where we may not read
        (change(resultpath="s3://ward-out/night"), ELSEWHERE, ELSEWHERE, UNREAD, False, AT_HOME, False),
        (change(resultpath="s3://ward-out/night/"), ELSEWHERE, ELSEWHERE, UNREAD, False, AT_HOME, False),
        (away(resultpath="s3://ward-out/night"), ELSEWHERE, ELSEWHERE, UNREAD, False, AT_HOME, False),
        # data without /inputs/ in its name: no end marker ever comes
        (away(datanames=("s3://ward-public/a.tif",), resultpath="s3://ward-out/night"),
         ELSEWHERE, ELSEWHERE, None, False, AT_HOME, False),
        # results at home, by their whole name
        (change(resultpath="s3://caiman-ncap-web/wardlab/results"), AT_HOME, AT_HOME, AT_HOME, True, None, False),
        # without resultpath: logs at home, never written; results beside the data
        (BYPASS, AT_HOME, BESIDE, AT_HOME, True, None, True),
        (away(datanames=("s3://ward-public/night/a.tif",)), AT_HOME, BESIDE, None, False, None, True),
        # our own data by its whole name is no foreign data
        (away(datanames=("s3://caiman-ncap-web/wardlab/inputs/a.tif",)), AT_HOME, AT_HOME, AT_HOME, True, None, False),
    ],
)  # fmt: skip
def test_where_artefacts_lie(
    body: SubmitBody, logs: str, results: str, marker: str | None, readable: bool, stub: str | None, blind: bool
) -> None:
    def place(folder: str | None, name: str) -> S3Place | None:
        return S3Place(*f"{folder}/{name}".split(" ")) if folder else None

    found = artefacts(body, LAYOUT)
    assert found.certificate == place(logs, "logs/certificate.txt")
    assert found.statuses == place(logs, "logs/")
    assert found.results == place(results, "process_results/")
    assert found.end_marker == place(marker, "process_results/end.txt")
    assert found.end_marker_readable is readable
    assert found.stub == place(stub, "logs/certificate.txt")
    assert found.blind is blind
    assert set(found.folders) == {place(folder, "") for folder in (logs, results, stub) if folder}


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("process_results/a_result.mat", True),
        ("process_results/figures/end.txt", True),
        ("process_results/c.yaml.bak", True),
        ("process_results/c.yaml", False),  # its copy comes after a failure too
        ("process_results/update.txt", False),
        ("process_results/end.txt", False),
        ("process_results/", False),
        ("logs/certificate.txt", False),
    ],
)
def test_what_is_a_result(name: str, result: bool) -> None:
    assert is_result(name, BYPASS.configname) is result
