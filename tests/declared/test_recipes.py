"""What docs/rig-integration.md and docs/examples/ show is tried here."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from declared_rig import DeclaredRig
from state_machine.inline_rig import BUCKET

from ncaasd.declare.config import load_config
from ncaasd.declare.manifest import parse_manifest
from ncaasd.model import Phase
from ncaasd.show.foresight import foresee_manifest

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "rig-integration.md").read_text(encoding="utf-8")
EXAMPLES = sorted(p.name for p in (DOCS / "examples").glob("*.yaml") if p.name != "config.yaml")
CONFIG = load_config((DOCS / "examples/config.yaml").read_bytes(), "config.yaml")

# example -> files of a rig -> the jobs it makes of them, with their datasets
SESSION = "M7/20240102_1"
FILES: dict[str, tuple[list[str], dict[str, list[str]]]] = {
    "first-try.yaml": (["inputs/small.zip", "configs/caiman.yaml"], {"small.zip": ["small.zip"]}),
    "caiman-frames.yaml": (
        [f"{SESSION}/{n}" for n in ("frames/0001.tif", "frames/0002.tif", "map.tif", "notes.txt", "DONE")]
        + ["M7/20240103_1/frames/0001.tif", "configs/caiman.yaml"],
        {SESSION: [f"{SESSION}.zip"]},
    ),
    "caiman-stacks.yaml": (
        [f"{SESSION}/{n}" for n in ("a_00001.tif", "a_preview.tif", "DONE")] + ["configs/caiman.yaml"],
        {SESSION: [f"{SESSION}.zip"]},
    ),
    "deeplabcut-project.yaml": (
        [
            f"inputs/projects/reach/{n}"
            for n in ("config.yaml", "labeled-data/v1/img1.png", "videos/v1.avi", "dlc-models/big", "READY")
        ]
        + ["configs/dlc.yaml"],
        {"projects/reach": ["projects/reach.zip"]},
    ),
    "scanimage.yaml": (
        [
            f"M7/20240102/{n}"
            for n in ("s_00001.tif", "s_00002_00001.tif", "s_Motion_00001.tif", "s.csv", "ref_00001.tif")
        ]
        + ["configs/M7.yaml"],
        {f"M7/20240102/{n}": [f"M7/20240102/{n}"] for n in ("s_00001.tif", "s_00002_00001.tif")},
    ),
    "bonsai.yaml": (
        [
            "M7/s1/cam0.avi",
            "M7/s1/cam0.csv",
            "M7/s1/DONE",
            "M7/s2/cam0.avi",
            "M8/s1/cam0.avi",
            "M8/s1/DONE",
            "M8/s1/ABORTED",
            "configs/dlc.yaml",
        ],
        {"M7/s1/cam0.avi": ["M7/s1/cam0.avi"]},
    ),
}


def test_every_example_is_tried_and_named_on_the_page() -> None:
    assert sorted(FILES) == EXAMPLES
    assert [name for name in EXAMPLES if f"examples/{name}" not in PAGE] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_right_and_plans_what_it_says(rig: DeclaredRig, name: str) -> None:
    data = (DOCS / "examples" / name).read_bytes()
    standing = b"rules:" in data
    parse_manifest(data, name, standing=standing, sources=CONFIG.sources, tools=CONFIG.tools)
    rig.configure(sources={"rig1": str(rig.source)}, tools={"split-stacks": list(CONFIG.tools["split-stacks"])})
    files, wanted = FILES[name]
    for file in files:
        write = rig.write if file.startswith(("inputs/", "configs/")) else rig.record
        write(file, "fr: 1\n")
    seen = foresee_manifest(rig.rig.config, None, BUCKET, data, name, rig.clock.now())
    planned = {j.spec.unit: j for p in seen.previews for j in p.jobs}
    assert {unit: [d.name for d in j.spec.datasets] for unit, j in planned.items()} == wanted
    assert {j.plan for j in planned.values()} == {"submit"}, {j.why for j in planned.values()}
    assert b"small" in data, "it says that it should be tried with something small first"


def recipe(name: str) -> str:
    found = re.search(rf"<!-- recipe: {re.escape(name)} -->\n```\w+\n(.*?)\n```", PAGE, re.S)
    assert found
    return found[1]


def run(rig: DeclaredRig, command: list[str], end: Callable[[], None]) -> tuple[int, str, str]:
    """The rig's script beside the engine, whose jobs end as `end` says."""
    environment = {"PATH": "/usr/bin:/bin", "ANALYSIS": str(rig.home), "CONFIG": "c.yaml", "POLL": "0.1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        for _ in range(600):
            rig.turns(1)
            end()
            try:
                out, err = process.communicate(timeout=0.05)
            except subprocess.TimeoutExpired:
                continue
            return process.returncode, out.strip(), err.strip()
        process.kill()
    raise AssertionError("the script did not end")


def commands(tmp_path: Path, rig: DeclaredRig, recording: Path) -> dict[str, list[str]]:
    shell, python = tmp_path / "submit-and-wait.sh", tmp_path / "submit_and_wait.py"
    shell.write_text(recipe(shell.name))
    python.write_text(recipe(python.name))
    return {
        "sh": ["sh", str(shell), str(recording)],
        "python": [sys.executable, str(python), str(rig.home), str(recording), "c.yaml", "0.1"],
    }


def ends(rig: DeclaredRig, *, well: bool) -> Callable[[], None]:
    def end() -> None:
        for job in rig.jobs():
            if job.phase is Phase.SUBMITTED and job.verdict is None:
                rig.finish(job, well=well)

    return end


@pytest.mark.parametrize("language", ["sh", "python"])
@pytest.mark.parametrize("well", [True, False])
def test_a_script_follows_its_job_to_the_end(rig: DeclaredRig, tmp_path: Path, language: str, well: bool) -> None:
    recording = tmp_path / "mouse 7.tif"
    recording.write_bytes(b"recording")
    code, out, err = run(rig, commands(tmp_path, rig, recording)[language], ends(rig, well=well))
    results = f"{rig.home}/results/{rig.job().results}"
    expected = {
        ("sh", True): (0, results),
        ("sh", False): (1, ""),
        ("python", True): (0, f"done {results}"),
        ("python", False): (0, f"failed {results}"),
    }
    assert (code, out) == expected[language, well], err
    assert rig.uploaded() == ["mouse_7-27a851ad.tif"]


@pytest.mark.parametrize(("language", "code"), [("sh", 2), ("python", 1)])
def test_a_script_learns_that_its_manifest_is_wrong(rig: DeclaredRig, tmp_path: Path, language: str, code: int) -> None:
    recording = tmp_path / "a.tif"
    recording.write_bytes(b"recording")
    command = commands(tmp_path, rig, recording)[language]
    if language == "sh":
        text = Path(command[1]).read_text().replace("$CONFIG", "c.yml")
        Path(command[1]).write_text(text)
    else:
        command[4] = "c.yml"
    assert run(rig, command, lambda: None)[0] == code
    assert rig.jobs() == []


def test_the_status_file_on_the_page_has_the_keys_that_are_written(rig: DeclaredRig) -> None:
    import json

    shown = json.loads(re.search(r"```json\n(.*?)\n```", PAGE, re.S)[1])  # type: ignore[index]  # it is there
    rig.write("inputs/a.tif", "a")
    rig.ask("mouse7", "a.tif")
    rig.until(lambda: rig.submitted(1), "the submit")
    rig.turns(3)
    written = rig.status("submissions/mouse7.status.json")
    assert list(written) == list(shown)
    assert list(written["jobs"][0]) == list(shown["jobs"][0])
