"""The config: what is read, and every problem at its line."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from declare_tables import CONFIG, problems
from hypothesis import given
from hypothesis import strategies as st

from ncaasd.declare.config import Band, Config, Delete, Move, Web, bandwidth_limit, load_config


def load(more: str = "", base: str = CONFIG) -> Config:
    return load_config((base + more).encode(), "config.yaml")


def at(config: Any, path: str) -> Any:
    for step in path.split("."):
        config = config[step] if isinstance(config, dict) else getattr(config, step)
    return config


@pytest.mark.parametrize(
    ("more", "path", "value"),
    [
        ("", "group", "user1"),
        ("", "root", "/data/neurocaas"),
        ("", "rig", None),
        ("rig: 20240102_01", "rig", "20240102_01"),
        ("rig: 2024-01-02", "rig", "2024-01-02"),
        ("rig: on", "rig", "on"),
        ("rig: 007", "rig", "007"),
        ("rig: ~", "rig", None),
        ("state: /var/lib/ncaasd/", "state", "/var/lib/ncaasd"),
        ("aws: {profile: 1234}", "aws.profile", "1234"),
        ("aws: {endpoint_url: 'http://127.0.0.1:8333'}", "aws.endpoint_url", "http://127.0.0.1:8333"),
        ("", "aws.region", "us-east-1"),
        ("watch: {mode: polling}", "watch.mode", "polling"),
        ("", "watch.settle", None),
        ("watch: {settle: 1h30m}", "watch.settle", 5400.0),
        ("watch: {rescan: 90s}", "watch.rescan", 90.0),
        ("watch: {min_free: 500 MiB}", "watch.min_free", 500 * 2**20),
        ("watch: {min_free: 0}", "watch.min_free", 0),
        ("watch: {ignore: '*.bak'}", "watch.ignore", ("*.bak",)),
        ("watch: {ignore: []}", "watch.ignore", ()),
        ("watch:\n", "watch.rescan", 300.0),
        ("upload: {prefix: rig-a/}", "upload.prefix", "rig-a/"),
        ("upload: {prefix: }", "upload.prefix", ""),
        ("upload: {names: refuse}", "upload.names", "refuse"),
        ("upload: {parallel: 3}", "upload.parallel", 3),
        ("", "upload.order", "oldest"),
        ("jobs: {max_active: 4}", "jobs.max_active", 4),
        ("jobs: {max_per_day: 5}", "jobs.max_per_day", 5),
        ("jobs: {ask_above: 6}", "jobs.ask_above", 6),
        ("jobs: {stop_after_failures: 1}", "jobs.stop_after_failures", 1),
        ("jobs: {timeout: 2 days}", "jobs.timeout", 172800.0),
        ("jobs: {poll: {max: 20s}}", "jobs.poll.max", 20.0),
        ("jobs: {poll: {max: 20s}}", "jobs.poll.min", 15.0),
        ("jobs: {retry_refused: {capacity: 0}}", "jobs.retry_refused.capacity", 0),
        ("jobs: {retry_refused: {budget: 2}}", "jobs.retry_refused.budget", 2),
        ("results: {fetch: all}", "results.fetch", "all"),
        ("results: {logs: never}", "results.logs", "never"),
        ("", "after_results.local_inputs", "keep"),
        ("after_results: {local_inputs: {move: '/a/{path}'}}", "after_results.local_inputs", Move(move="/a/{path}")),
        ("after_results: {local_inputs: {delete: {copy_at: '/a/{path}'}}}",
         "after_results.local_inputs.delete.copy_at", "/a/{path}"),
        ("after_results: {remote_inputs: delete}", "after_results.remote_inputs", "delete"),
        ("tools: {no: [x]}\nafter_results: {run: no}", "after_results.run", "no"),
        ("sources: {rig1: /mnt/rig1/}", "sources", {"rig1": "/mnt/rig1"}),
        ("tools: {on: [python, 2024-01-02, '{files}']}", "tools", {"on": ("python", "2024-01-02", "{files}")}),
        ("notify: {urls: ntfy://x}", "notify.urls", ("ntfy://x",)),
        ("notify: {events: failed}", "notify.events", ("failed",)),
        ("notify: {heartbeat: 'https://hc.example/x'}", "notify.heartbeat", "https://hc.example/x"),
        ("web: off", "web", None),
        ("web: false", "web", None),
        ("web: {listen: '[::1]:8484'}", "web.host", "::1"),
        ("", "web.port", 8484),
        ("log: {level: debug}", "log.level", "debug"),
        ("log: {format: json}", "log.format", "json"),
        ("log:\n", "log.keep", 90 * 86400.0),
        ("log: {keep: 2w}", "log.keep", 14 * 86400.0),
        ("log: {keep: 1d}", "log.keep", 86400.0),
        ("log: {keep: Forever}", "log.keep", None),
    ],
)  # fmt: skip
def test_values(more: str, path: str, value: object) -> None:
    found = at(load(more), path)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("over", "path", "value"),
    [
        ("{}", "aws.profile", "lab"),
        ("", "aws.profile", "lab"),
        ("{aws: {profile: dlc}}", "aws.profile", "dlc"),
        ("{aws: {profile: dlc}}", "aws.region", "eu-west-1"),
        ("{aws: {profile: ~}}", "aws.profile", None),
        ("{aws: }", "aws.profile", "lab"),
        ("{jobs: {poll: {min: 1s}}}", "jobs.poll.min", 1.0),
        ("{jobs: {poll: {min: 1s}}}", "jobs.poll.max", 60.0),
        ("{jobs: {max_active: 1}}", "jobs.poll.max", 60.0),
        ("{upload: {bandwidth: none}}", "upload.bandwidth", ()),
        ("{watch: {ignore: [a]}}", "watch.ignore", ("a",)),
        ("{after_results: {local_inputs: keep}}", "after_results.local_inputs", "keep"),
        # one of the alternatives replaces the other: it is not laid over it
        ("{after_results: {local_inputs: {delete: {copy_at: '/b/{path}'}}}}", "after_results.local_inputs",
         Delete.model_validate({"delete": {"copy_at": "/b/{path}"}})),
    ],
)  # fmt: skip
def test_an_analysis_is_laid_over_the_general_sections(over: str, path: str, value: object) -> None:
    general = (
        "aws: {profile: lab, region: eu-west-1}\njobs: {poll: {max: 60s}}\nupload: {bandwidth: 1 MB/s}\n"
        "watch: {ignore: [b, c]}\nafter_results: {local_inputs: {move: '/a/{path}'}}\n"
    )
    config = load(f"  dlc-ncap-web: {over}\n{general}")
    assert at(config.analyses["dlc-ncap-web"], path) == value
    assert config.analyses["caiman-ncap-web"].aws.profile == "lab"


@pytest.mark.parametrize(("polling", "seconds"), [(False, 30.0), (True, 600.0)])
def test_settle_depends_on_how_a_tree_is_watched(polling: bool, seconds: float) -> None:
    assert load().watch.settle_for(polling) == seconds
    assert load("watch: {settle: 2s}").watch.settle_for(polling) == 2.0


@pytest.mark.parametrize(
    ("bandwidth", "limits"),  # minute of the day -> bytes per second
    [
        ("none", {0: None, 720: None}),
        ("~", {0: None}),
        ("[]", {0: None}),
        ("1 MB/s", {0: 10**6, 1439: 10**6}),
        ("0", {0: 0}),
        ("[{hours: 08:00-19:00, limit: 10 MB/s}]", {479: None, 480: 10**7, 1139: 10**7, 1140: None}),
        ("{hours: 08:00-19:00, limit: 10 MB/s}", {479: None, 480: 10**7}),
        ("[{hours: 22:00-06:00, limit: 0}]", {1319: None, 1320: 0, 0: 0, 359: 0, 360: None}),
        ("[{limit: 5 MB/s}, {hours: 08:00-09:00, limit: 1 MB/s}]", {0: 5 * 10**6, 500: 10**6}),
        ("[{limit: 5 MB/s}, {hours: 08:00-09:00, limit: none}]", {0: 5 * 10**6, 500: 5 * 10**6}),
    ],
)
def test_bandwidth(bandwidth: str, limits: dict[int, int | None]) -> None:
    bands = load(f"upload: {{bandwidth: {bandwidth}}}").upload.bandwidth
    assert {minute: bandwidth_limit(bands, minute) for minute in limits} == limits


@pytest.mark.parametrize(
    ("more", "line", "key", "words"),
    [
        ("wtch: {}", 5, "wtch", "is watch meant? Allowed: after_results, analyses"),
        ("watch:\n  settel: 30s", 6, "watch.settel", "is settle meant?"),
        ("max_active: 3", 5, "max_active", "is jobs.max_active meant?"),
        ("aws: {secret_access_key: x}", 5, "aws.secret_access_key", "never in this file"),
        ("rig: a b", 5, "rig", "must be a name of letters"),
        ("rig: [a]", 5, "rig", "must be text"),
        ("rig: {a}", 5, "rig", "in quotes"),
        ("rig: mysubmit.json", 5, "rig", "submit.json"),
        ("state: ~/x", 5, "state", "~ is not expanded"),
        ("state: x", 5, "state", "absolute path"),
        ("state: /data/../x", 5, "state", "without .."),
        ("state: /data/neurocaas/state", 5, "state", "must not overlap the root"),
        ("state: /data", 5, "state", "must not overlap the root"),
        ("aws: {endpoint_url: 127.0.0.1}", 5, "aws.endpoint_url", "must be a URL"),
        ("aws: {region: US East}", 5, "aws.region", "such as us-east-1"),
        ("watch: {mode: native_}", 5, "watch.mode", "is native meant?"),
        ("watch: {settle: 30}", 5, "watch.settle", "a duration such as 30s"),
        ("watch: {settle: 0s}", 5, "watch.settle", "more than 0"),
        ("watch: {settle: .nan}", 5, "watch.settle", "a duration such as"),
        ("watch: {rescan: }", 5, "watch.rescan", "has no value"),
        ("watch: {min_free: lots}", 5, "watch.min_free", "a size such as 5 GB"),
        ("watch: 5", 5, "watch", "keys and values below it; found '5'"),
        ("watch: [5]", 5, "watch", "found a list"),
        ("watch: {ignore: {a: b}}", 5, "watch.ignore", "a list of texts"),
        ("watch:\n  ignore:\n    - ok\n    - [a]", 8, "watch.ignore[1]", "must be text"),
        ("upload: {prefix: rig-a}", 5, "upload.prefix", "with a / at the end"),
        ("upload: {prefix: inputs2/}", 5, "upload.prefix", "begins with inputs"),
        ("upload: {prefix: ../}", 5, "upload.prefix", "must be a folder"),
        ("upload: {parallel: 0}", 5, "upload.parallel", "must be 1 or more"),
        ("upload: {parallel: 2.5}", 5, "upload.parallel", "whole number"),
        ("upload: {parallel: -1}", 5, "upload.parallel", "whole number"),
        ("upload: {bandwidth: 10 Mb/s}", 5, "upload.bandwidth", "bytes or bits"),
        ("upload: {bandwidth: [{hours: 8-19, limit: 1 MB/s}]}", 5, "upload.bandwidth[0].hours", "hours such as"),
        ("upload: {bandwidth: [{hours: 08:00-19:00}]}", 5, "upload.bandwidth[0].limit", "is missing"),
        ("jobs:\n  poll: {min: 10m}", 6, "jobs.poll.min", "must not be longer than max; it is 10m, and max is 5m"),
        ("jobs: {max_per_day: many}", 5, "jobs.max_per_day", "whole number"),
        ("results: {fetch: mne}", 5, "results.fetch", "is mine meant?"),
        ("after_results: {local_inputs: delete}", 5, "after_results.local_inputs", "copy_at"),
        ("after_results: {local_inputs: {move: /archive}}", 5, "after_results.local_inputs.move", "{path} in it"),
        ("after_results: {local_inputs: {delete: {}}}", 5, "after_results.local_inputs.delete.copy_at", "is missing"),
        ("after_results: {run: nope}", 5, "after_results.run", "'nope' is not one of `tools` (there are none)"),
        ("sources: {a b: /x}", 5, "sources.a b", "must be a name"),
        ("sources: {a: x}", 5, "sources.a", "absolute path"),
        ("sources: {a: /}", 5, "sources.a", "not the whole file system"),
        ("sources: {a.b: /data/neurocaas/x}", 5, "sources.a.b", "overlaps the root"),
        ("sources: {a: /data}", 5, "sources.a", "overlaps the root"),
        ("sources:\n  a: /x\n  b: /x/y", 7, "sources.b", "overlaps the source a"),
        ("sources:\n  b: /x/y\n  a: /x", 6, "sources.b", "overlaps the source a"),
        ("sources:\n  root: /x\n  a: /x", 7, "sources.a", "overlaps the source root"),
        ("sources: {a: /s}\nstate: /s/t", 6, "state", "must not overlap the source a"),
        ("links: [/]", 5, "links[0]", "must be a folder, not the whole file system"),
        ("links: [videos]", 5, "links[0]", "must be an absolute path"),
        ("links: [/mnt/../etc]", 5, "links[0]", "must be a path without .."),
        ("links: [/v, /s]\nstate: /s/t", 5, "links[1]", "must not overlap the state folder"),
        ("links: /s/t\nstate: /s", 5, "links", "must not overlap the state folder"),
        ("tools: {a: python x.py}", 5, "tools.a", "there is no shell"),
        ("tools: {a: []}", 5, "tools.a", "must name a program"),
        ("notify: {urls: [slack]}", 5, "notify.urls[0]", "Apprise URL"),
        ("notify: {events: [faild]}", 5, "notify.events[0]", "is failed meant?"),
        ("web: {listen: 8484}", 5, "web.listen", "an address and a port"),
        ("web: {listen: 'x:99999'}", 5, "web.listen", "an address and a port"),
        ("web: on", 5, "web", "keys and values"),
        ("log: {keep: 12h}", 5, "log.keep", "must be 1d or more, or forever"),
        ("log: {keep: 0}", 5, "log.keep", "must be 1d or more, or forever"),
        ("log: {keep: none}", 5, "log.keep", "a duration such as 90d, or forever"),
        ("log: {keep: }", 5, "log.keep", "has no value"),
        ("log: {level: verbose}", 5, "log.level", "must be one of debug, info, warning or error"),
        ("rig: !!str x", 5, "", "has a tag"),
        ("group: other", 5, "group", "here twice (first in line 1)"),
    ],
)
def test_one_problem_is_named_with_its_place(more: str, line: int, key: str, words: str) -> None:
    ((found_line, column, found_key, message),) = problems(lambda: load(more))
    assert (found_line, found_key) == (line, key)
    assert column > 0
    assert words in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {"group", "root", "analyses"}),
        ("[]", {""}),
        ("group: g", {"root", "analyses"}),
        ("group: a/b\nroot: r\nanalyses: {Bad_Name: {}, ab: {}, 1.2.3.4: {}}",
         {"group", "root", "analyses.Bad_Name", "analyses.ab", "analyses.1.2.3.4"}),
        ("group: g\nroot: /\nanalyses: {}", {"root", "analyses"}),
        ("group: g\nroot: /r\nanalyses: [abc]", {"analyses"}),
        ("group: g\nroot: /r\nanalyses: {abc: {wtch: 1, watch: {settle: x}}, abd: {root: /x}}",
         {"analyses.abc.wtch", "analyses.abc.watch.settle", "analyses.abd.root"}),
        # what is wrong in a general section is said once, at that section
        ("group: g\nroot: /r\nanalyses: {abc: {}, abd: }\nwatch: {settle: x}\njobs: {poll: {min: 1h}}",
         {"watch.settle", "jobs.poll.min"}),
        ("group: g\ngroup: h\nroot: /r\nanalyses: {abc: }\nwtch: {}\nwatch: {settle: x, mode: y}",
         {"group", "wtch", "watch.settle", "watch.mode"}),
    ],
)  # fmt: skip
def test_all_problems_are_said_at_once_and_each_once(text: str, expected: set[str]) -> None:
    found = problems(lambda: load(text, base=""))
    assert {key for _, _, key, _ in found} == expected
    assert len(found) == len(expected)
    assert [f[:2] for f in found] == sorted(f[:2] for f in found)


def test_a_problem_reads_as_a_sentence_with_its_place() -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011, RUF100 - the whole sentence is compared below
        load("watch: {settle: 30 parsecs}")
    assert str(caught.value) == (
        "config.yaml:5:17: watch.settle: expected a duration such as 30s, 5m, 48h or 1h30m; found '30 parsecs'"
    )


def test_the_config_does_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().group = "other"  # type: ignore[misc]  # that is what is tested


def test_a_program_may_make_the_models() -> None:
    assert Web(listen="127.0.0.1:0" + "1").port == 1
    assert Band(hours=(0, 1440), limit=5).limit == 5
    assert Config.model_validate({"group": "g", "root": "/r", "analyses": {"abc": {"jobs": {"max_active": 2}}}})


_KEYS = """group root analyses watch settle jobs poll min max web off upload bandwidth limit hours after_results
local_inputs move delete copy_at sources tools aws .nan 30s 0 -1 null ~ [a] {a:b} {path} <<"""
_words = st.sampled_from(_KEYS.split())
_trees = st.recursive(
    _words,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(st.tuples(_words, inner), max_size=4).map(
            lambda pairs: f"{{{', '.join(f'{k}: {v}' for k, v in pairs)}}}"
        )
    ),
    max_leaves=12,
)


@given(st.lists(st.tuples(_words, _trees), max_size=6))
def test_no_tree_raises_anything_else(pairs: list[tuple[str, str]]) -> None:
    problems(lambda: load("\n".join(f"{key}: {value}" for key, value in pairs)))


@given(st.text(max_size=100))
def test_no_text_raises_anything_else(text: str) -> None:
    problems(lambda: load(text))


def test_reading_configs_does_not_load_the_sdk() -> None:
    code = "import sys, ncaasd.declare.config; sys.exit(any(m in sys.modules for m in ('boto3', 'sqlite3', 'rich', 'typer')))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
