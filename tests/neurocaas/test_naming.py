"""Keys, ids and part sizes."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncaasd.errors import LocalError
from ncaasd.neurocaas.naming import (
    MAX_OBJECT,
    MAX_PART,
    Layout,
    config_name,
    folder_name,
    id_fits,
    job_id,
    job_id_from_folder,
    key_problems,
    multipart_etag,
    needs_mapping,
    part_size,
    safe_key,
)

LAYOUT = Layout("caiman-ncap-web", "wardlab")
MIB, GIB, TIB = 1024**2, 1024**3, 1024**4


@pytest.mark.parametrize(
    ("found", "key"),
    [
        (LAYOUT.inputs, "wardlab/inputs/"),
        (LAYOUT.configs, "wardlab/configs/"),
        (LAYOUT.submissions, "wardlab/submissions/"),
        (LAYOUT.results, "wardlab/results/"),
        (LAYOUT.input_key("", "m1/a.tif"), "wardlab/inputs/m1/a.tif"),
        (LAYOUT.input_key("rig-a/", "m1/a.tif"), "wardlab/inputs/rig-a/m1/a.tif"),
        (LAYOUT.input_key("rig-a", "m1/a.tif"), "wardlab/inputs/rig-a/m1/a.tif"),
        (LAYOUT.config_key("rig-a/", "c.yaml"), "wardlab/configs/rig-a/c.yaml"),
        (LAYOUT.submit_key("123"), "wardlab/submissions/123-submit.json"),
        (LAYOUT.job_folder("123"), "wardlab/results/job__caiman-ncap-web_123/"),
        (LAYOUT.rig_marker("rig-a"), "wardlab/submissions/.ncaasd/rig-a"),
        (LAYOUT.probe_key(), "wardlab/submissions/.ncaasd/probe"),
    ],
)
def test_where_things_lie(found: str, key: str) -> None:
    assert found == key


def test_a_submit_key_starts_one_job_and_nothing_else_does() -> None:
    assert LAYOUT.submit_key("123").endswith("submit.json")
    assert not LAYOUT.probe_key().endswith("submit.json")
    assert not LAYOUT.rig_marker("rig-a").endswith("submit.json")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("job__caiman-ncap-web_123", "123"),
        ("job__caiman-ncap-web_123/", "123"),
        ("job__dlc-ncap-web_2031-03-05T04:10:11Z", "2031-03-05T04:10:11Z"),
        ("job__dlc-ncap-web_a_b", "a_b"),
        ("job__dlc-ncap-web_", None),
        ("job__dlc-ncap-web", None),
        ("job_x_dlc-ncap-web_1", None),
        ("other", None),
        ("job__dlc-ncap-web_1/logs", None),
        ("", None),
    ],
)
def test_job_id_from_folder(name: str, found: str | None) -> None:
    assert job_id_from_folder(name) == found


@given(st.from_regex(r"[a-z0-9][a-z0-9.-]{1,20}", fullmatch=True), st.from_regex(r"[A-Za-z0-9._-]+", fullmatch=True))
def test_a_folders_name_gives_its_id_back(bucket: str, identity: str) -> None:
    assert job_id_from_folder(folder_name(bucket, identity)) == identity


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("m1/a.tif", "m1/a.tif"),
        # as it is: transliterated, and a hash of the name (SHA-256 of its bytes), as `printf %s … | sha256sum` has it
        ("Gr\xf6\xdfe 3.tif", "Grosse_3-3f6a5ddb.tif"),
        ("mouse 7/day $1 (`x`).tif", "mouse_7-d24c5164/day_1_x_-aec38948.tif"),
        ("m\xe4use/\u6e2c\u5b9a.tif", "mause-bae02b28/CeDing-21029d16.tif"),
        ("\u65e5\u672c.tif", "RiBen-e0221ce6.tif"),
        ("bad\udcff.tif", "bad-a8d6b8f4.tif"),
        ("a  b.tif", "a_b-d0c1372b.tif"),
        ("a_ b.tif", "a__b-63fd2b62.tif"),
        # how a composed letter is written makes two names on a disk
        ("\xe9.tif", "e-a57279d3.tif"),
        ("e\u0301.tif", "e-db68657c.tif"),
        # endings: the hash goes before them
        ("\xe9.ome.tif", "e-26a93ded.ome.tif"),
        ("\xe9.nii.gz", "e-53dd6ee8.nii.gz"),
        ("\xe9", "e-4a99557e"),
        ("\xe9.", "e.-49b27f5b"),
        ("a.t\xedf", "a-2ad10861.tif"),
        # what begins with a dot stays hidden; nothing begins like an option
        (".\xe9", ".e-76fb86f5"),
        (".\xe9.tif", ".e-df3f2f3f.tif"),
        ("-\xe9.tif", "_e-956ca074.tif"),
        ("\u2014x.tif", "_x-0bf06820.tif"),
        # transliterations that would mean something else
        ("\xbd.tif", "1_2-92ac8022.tif"),
        ("\u2024/a.tif", ".-da3beb90/a.tif"),
        ("\xefnputs/a.tif", "_inputs-9d69145f/a.tif"),
        ("my submit.json", "my_submit-d3ffa6a5.json"),
        ("the end.txt", "the_end-ac68ea07.txt"),
    ],
)
def test_F75_safe_key(path: str, key: str) -> None:
    assert safe_key(path) == key
    assert needs_mapping(path) is (path != key)


@given(st.text(st.characters(min_codepoint=1)))
def test_F75_a_safe_key_is_safe_and_stays(path: str) -> None:
    key = safe_key(path)
    assert re.fullmatch(r"[A-Za-z0-9._/-]*", key)
    assert safe_key(key) == key
    assert key.count("/") == path.count("/")


ANY_NAME = st.text(st.characters(min_codepoint=1, exclude_characters="/"), min_size=1)


@given(ANY_NAME, ANY_NAME)
def test_F96_different_names_stay_different(one: str, other: str) -> None:
    assert (safe_key(one) == safe_key(other)) == (one == other)


@given(
    st.text("\xe9e\u0301\u65e5\u4e2d ._-", min_size=1, max_size=4),
    st.text("\xe9e\u0301\u65e5\u4e2d ._-", min_size=1, max_size=4),
)
def test_F96_much_alike_names_stay_different(one: str, other: str) -> None:
    assert (safe_key(one) == safe_key(other)) == (one == other)


def test_F96_ten_thousand_names_of_a_kind_have_as_many_keys() -> None:
    names = [chr(0x4E00 + n % 100) + chr(0x4E00 + n // 100) + ".tif" for n in range(10_000)]
    assert len({safe_key(n) for n in names}) == len(names)


@given(ANY_NAME)
def test_F75_what_was_mapped_starts_no_job_ends_none_and_is_no_groups_end(name: str) -> None:
    key = safe_key(name)
    problems = key_problems(f"lab/inputs/{key}")
    assert not problems or key == name, problems


def test_F75_the_longest_name_of_a_disk_fits_a_key() -> None:
    """255 bytes of an emoji come to ten times as many letters."""
    assert len(safe_key("\U0001f600" * 60 + ".tif")) < 128


@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "POSIX"])
def test_F75_a_key_does_not_depend_on_the_locale(locale: str) -> None:
    code = "from ncaasd.neurocaas.naming import safe_key; print(safe_key('Gr\\xf6\\xdfe \\udcff.tif'))"
    environment = {**os.environ, "LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == safe_key("Gr\xf6\xdfe \udcff.tif")


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("wardlab/inputs/m1/a.tif", None),
        ("wardlab/inputs/rig-a/m1/a.b-c_d.tif", None),
        ("wardlab/inputs/submit.json", "ends in submit.json"),
        ("wardlab/inputs/m1/mysubmit.json", "ends in submit.json"),
        ("wardlab/configs/resubmit.json", "ends in submit.json"),
        ("wardlab/inputs/Submit.JSON", None),
        ("wardlab/inputs/submit.json.gz", None),
        ("wardlab/inputs/m1/end.txt", "ends in end.txt"),
        ("wardlab/inputs/m1/weekend.txt", "ends in end.txt"),
        ("wardlab/inputs//a.tif", "empty folder"),
        ("wardlab/inputs/m1/", "empty folder"),
        ("wardlab/inputs/../a.tif", '".."'),
        ("wardlab/inputs/./a.tif", '"."'),
        ("wardlab/inputs/" + "d" * 1009, None),  # 1,024 bytes
        ("wardlab/inputs/" + "d" * 1010, "longer than S3's 1024 bytes"),
        ("wardlab/inputs/a b.tif", "shell line"),
        ('wardlab/inputs/a"b.tif', "shell line"),
        ("wardlab/inputs/$(reboot).tif", "shell line"),
        ("wardlab/inputs/`x`.tif", "shell line"),
        ("wardlab/inputs/a\\b.tif", "shell line"),
        ("wardlab/inputs/a\nb.tif", "shell line"),
        ("wardlab/inputs/\u00e4.tif", "shell line"),
        ("wardlab/inputs/bad\udcff.tif", "shell line"),
        ("wardlab/inputs/\ud800.tif", "shell line"),
        ("wardlab/inputs/inputs/a.tif", "begins with inputs"),
        ("wardlab/inputs/m1/inputs-old/a.tif", "begins with inputs"),
        # the workers' pattern does not tell a folder from a file
        ("wardlab/inputs/inputs_1.tif", "begins with inputs"),
        ("wardlab/inputs/m1/my-inputs/a.tif", None),
        ("inputs/inputs/a.tif", None),  # a group of that name
        ("inputs/inputs/inputs/a.tif", "begins with inputs"),
    ],
)
def test_F65_F75_key_problems(key: str, why: str | None) -> None:
    problems = key_problems(key)
    assert [why in problem for problem in problems] == ([True] if why else []), problems


def test_all_problems_of_a_key_at_once_in_printable_words() -> None:
    problems = key_problems("wardlab/inputs/inputs\u202e\udcff//my submit.json")
    assert len(problems) == 4
    assert all(problem.isprintable() for problem in problems)


# Job ids

ARGUMENTS = {
    "bucket": "caiman-ncap-web",
    "group": "wardlab",
    "name": "two-photon",
    "datasets": ["wardlab/inputs/a.tif", "wardlab/inputs/b.tif"],
    "attempt": 1,
    "checksums": (),
}


def test_F18_a_job_id_never_changes() -> None:
    """A lost journal must recompute it: SHA-256 of the canonical form, computed here by another program."""
    canonical = int("0b0ecdddfed00448c1f389772e363e8da542d7d4857cc33ec212eb20c66de738", 16)
    found = job_id(**ARGUMENTS | {"datasets": ["wardlab/inputs/a.tif"]})
    assert found == str(10**14 + canonical % (9 * 10**14)) == "373078302254904"


def test_a_job_id_knows_no_order() -> None:
    assert job_id(**ARGUMENTS) == job_id(**ARGUMENTS | {"datasets": ARGUMENTS["datasets"][::-1]})
    sums = ["a=1", "b=2"]
    assert job_id(**ARGUMENTS | {"checksums": sums}) == job_id(**ARGUMENTS | {"checksums": sums[::-1]})


@pytest.mark.parametrize(
    "change",
    [
        {"bucket": "dlc-ncap-web"},
        {"group": "otherlab"},
        {"name": "two-photon2"},
        {"datasets": ["wardlab/inputs/rig-a/a.tif", "wardlab/inputs/b.tif"]},  # another rig's prefix
        {"datasets": ["wardlab/inputs/a.tif"]},
        {"attempt": 2},
        {"checksums": ["a=1"]},
        # parts that would run together if they were only joined
        {"name": "two-photon,", "datasets": ["wardlab/inputs/a.tif", "wardlab/inputs/b.tif"]},
        {"datasets": ["wardlab/inputs/a.tif,wardlab/inputs/b.tif"]},
    ],
)
def test_each_of_its_parts_makes_another_id(change: dict[str, object]) -> None:
    assert job_id(**ARGUMENTS | change) != job_id(**ARGUMENTS)


@given(st.text(), st.lists(st.text(st.characters(min_codepoint=1)), min_size=1), st.integers(1, 99))
def test_a_job_id_has_the_websites_form(name: str, datasets: list[str], attempt: int) -> None:
    found = job_id(bucket="b-b", group="g", name=name, datasets=datasets, attempt=attempt)
    assert re.fullmatch(r"[1-9][0-9]{14}", found)


def test_ids_of_many_jobs_differ() -> None:
    ids = {job_id(**ARGUMENTS | {"name": f"job {number}"}) for number in range(20_000)}
    assert len(ids) == 20_000


@pytest.mark.parametrize(("bucket", "fits"), [("b" * 36, True), ("b" * 37, False)])
def test_F64_id_fits(bucket: str, fits: bool) -> None:
    assert id_fits(bucket, "1" * 15) is fits


# Configs


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("caiman.yaml", "caiman-8201b08d.yaml"),
        ("caiman.yml", "caiman-8201b08d.yaml"),
        ("caiman.json", "caiman-8201b08d.json"),
        ("day 1/my config.yaml", "day_1-e9732851/my_config-8201b08d-e72b0c26.yaml"),
        ("v1.2/caiman.yaml", "v1.2/caiman-8201b08d.yaml"),
        ("v1.2/caiman", "v1.2/caiman-8201b08d"),  # refused by the rule on endings
        ("end.txt", "end-8201b08d.txt"),
        ("submit.json", "submit-8201b08d.json"),
    ],
)
def test_config_name(name: str, kept: str) -> None:
    assert config_name(name, b"fr: 30\n") == kept


def test_a_mended_config_has_another_name() -> None:
    assert config_name("c.yaml", b"fr: 30\n") != config_name("c.yaml", b"fr: 31\n")


# Parts


@pytest.mark.parametrize(
    ("size", "part"),
    [
        (0, 8 * MIB),
        (1, 8 * MIB),
        (10_000 * 8 * MIB, 8 * MIB),
        (10_000 * 8 * MIB + 1, 16 * MIB),
        (TIB, 112 * MIB),
        (48 * TIB, 5040 * MIB),
        (MAX_OBJECT, 5 * GIB),
    ],
)
def test_F37_part_size(size: int, part: int) -> None:
    assert part_size(size) == part


@given(st.integers(0, MAX_OBJECT))
def test_F37_a_part_size_is_the_smallest_that_does(size: int) -> None:
    part = part_size(size)
    assert part % (8 * MIB) == 0
    assert -(-size // part) <= 10_000
    assert part <= MAX_PART
    assert part == 8 * MIB or -(-size // (part - 8 * MIB)) > 10_000


def test_F37_larger_than_s3_stores_is_refused() -> None:
    with pytest.raises(LocalError, match="larger than the 53687091200000 bytes"):
        part_size(MAX_OBJECT + 1)


def test_F37_multipart_etag() -> None:
    """The parts `aaa` and `b`, as `openssl md5` has them."""
    parts = ["47bce5c74f589f4867dbd57e9ca9f808", "92eb5ffee6ae2fec3ad71c777531578f"]
    assert multipart_etag(parts) == "69b2d68a7b94b5d43547bb9e1be31a73-2"
