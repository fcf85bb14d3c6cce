"""A unit that is made into one file: what is in it, when it is made, what becomes of it."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from declared_rig import DeclaredRig, FileState, python, tree

from ncaasd.adapters.files.packages import LocalPackages, expanded
from ncaasd.adapters.tools import LocalTools
from ncaasd.errors import DiskFull, FileChanged, LocalError, ToolFailed
from ncaasd.model import Stat
from ncaasd.ports import PackFile

ZIP = {"source": "share", "unit": "{animal}/{run}", "datasets": "*.tif", "complete_when": "DONE", "package": "zip"}
TOOL = {**ZIP, "package": {"tool": "join", "name": "made/{animal}_{run}.bin"}}
JOIN = (
    "import sys",
    "out, files = sys.argv[1], sys.argv[2:]",
    "open(out, 'wb').write(b''.join(open(f, 'rb').read() for f in files))",
    "print('joined', len(files))",
)


def session(rig: DeclaredRig, unit: str = "M7/1") -> None:
    for frame in ("b", "a", "sub/c"):
        rig.record(f"{unit}/{frame}.tif")
    rig.record(f"{unit}/notes.txt", "private")


def test_a_unit_goes_up_as_one_zip_and_is_the_jobs_dataset(rig: DeclaredRig) -> None:
    session(rig)
    rig.rules(ZIP)
    rig.turns(20)
    assert (rig.uploaded(), rig.jobs()) == ([], []), "nothing before the unit is whole"
    rig.record("M7/1/DONE", "x")
    rig.until(lambda: rig.submitted(1), "the submit")
    assert rig.uploaded() == ["M7/1.zip"], "nothing else of the source goes up"
    assert rig.submits()[0]["dataname"] == ["lab/inputs/M7/1.zip"]
    with zipfile.ZipFile(io.BytesIO(rig.body("M7/1.zip"))) as made:
        assert {n: made.read(n) for n in made.namelist()} == {
            "a.tif": b"recording M7/1/a.tif",
            "b.tif": b"recording M7/1/b.tif",
        }
    assert rig.job().spec.unit == "M7/1"
    rig.turns(3)
    assert tree(rig.base / "packages") == {}, "removed once it is stored"


def test_the_users_own_files_are_only_read(rig: DeclaredRig) -> None:
    session(rig)
    rig.record("M7/1/DONE", "x")
    before = tree(rig.source)
    rig.rules(ZIP)
    rig.until(lambda: rig.submitted(1), "the submit")
    assert tree(rig.source) == before


def test_files_below_inputs_go_up_in_the_package_only(rig: DeclaredRig) -> None:
    for name in ("a.tif", "b.tif", "notes.txt", "DONE"):
        rig.write(f"inputs/M7/1/{name}", name)
    rig.rules({**ZIP, "source": None})
    rig.until(lambda: rig.submitted(1), "the submit")
    rig.turns(5)
    assert rig.uploaded() == ["M7/1.zip", "M7/1/DONE", "M7/1/notes.txt"]
    assert "package" in rig.file("M7/1/a.tif").reason


def test_a_tool_makes_the_package_and_its_output_is_kept_with_the_job(rig: DeclaredRig) -> None:
    rig.configure(tools={"join": [*python(rig.base, *JOIN), "{out}", "{files}"]})
    session(rig)
    rig.record("M7/1/DONE", "x")
    rig.rules(TOOL)
    rig.until(lambda: rig.submitted(1), "the submit")
    assert rig.body("made/M7_1.bin") == b"recording M7/1/a.tifrecording M7/1/b.tif"
    assert rig.submits()[0]["dataname"] == ["lab/inputs/made/M7_1.bin"]
    story = rig.rig.journal.events(subject="job r M7/1")
    assert [e.text for e in story if e.kind == "packed"] == ["the tool said: joined 2"]


def test_a_tool_that_fails_is_said_and_tried_again(rig: DeclaredRig) -> None:
    flag = rig.base / "licence"
    code = [
        "import os, sys",
        f"os.path.exists({str(flag)!r}) or sys.exit('no licence')",
        "open(sys.argv[1], 'w').write('x')",
    ]
    rig.configure(tools={"join": [*python(rig.base, *code), "{out}"]})
    session(rig)
    rig.record("M7/1/DONE", "x")
    rig.rules(TOOL)
    rig.until(lambda: rig.jobs() and "no licence" in rig.job().reason, "the reason")
    assert rig.file("made/M7_1.bin").state is FileState.REFUSED
    assert rig.uploaded() == []
    rig.restart()
    rig.turns(5)
    assert rig.file("made/M7_1.bin").state is FileState.REFUSED and "no licence" in rig.job().reason, "it says so still"
    flag.touch()
    rig.clock.sleep(120)
    rig.until(lambda: rig.submitted(1), "the submit")


def test_a_package_that_was_lost_before_its_upload_is_made_again(rig: DeclaredRig) -> None:
    session(rig)
    rig.record("M7/1/DONE", "x")
    rig.rules(ZIP)

    def built() -> bool:
        made = list((rig.base / "packages").rglob("*.zip"))
        for path in made:
            path.unlink()
        return bool(made)

    rig.server.faults.clear()
    for _ in range(40):
        if built():
            break
        rig.rig.turn()
        rig.clock.sleep(0.6)
    rig.until(lambda: rig.submitted(1), "the submit", 200)
    assert rig.uploaded() == ["M7/1.zip"]


def test_F52_a_package_that_is_gone_from_s3_is_made_and_stored_again(rig: DeclaredRig) -> None:
    session(rig)
    rig.record("M7/1/DONE", "x")
    rig.rules({**ZIP, "config": "later.yaml"})
    rig.until(lambda: rig.uploaded() == ["M7/1.zip"] and rig.file("M7/1.zip").state is FileState.STORED, "the upload")
    first = rig.body("M7/1.zip")
    rig.server.delete("lab/inputs/M7/1.zip")
    rig.write("configs/later.yaml", "fr: 1\n")
    rig.until(lambda: rig.submitted(1), "the submit", 200)
    assert rig.body("M7/1.zip") == first


def test_F92_a_late_frame_is_held_and_said(rig: DeclaredRig) -> None:
    session(rig)
    rig.record("M7/1/DONE", "x")
    rig.rules(ZIP)
    rig.until(lambda: rig.submitted(1), "the submit")
    first = rig.body("M7/1.zip")
    rig.record("M7/1/late.tif")
    rig.until(lambda: rig.state("M7/1/late.tif") is FileState.HELD, "the hold")
    assert "came after M7/1 was submitted" in rig.events("held")[-1]
    assert (rig.body("M7/1.zip"), len(rig.jobs())) == (first, 1)


def test_a_crash_while_packing_costs_nothing(rig: DeclaredRig) -> None:
    session(rig)
    rig.record("M7/1/DONE", "x")
    rig.rules(ZIP)
    for _ in range(60):
        rig.rig.turn()
        rig.clock.sleep(0.6)
        rig.restart()
        if rig.uploaded():
            break
    rig.until(lambda: rig.submitted(1), "the submit", 200)
    assert len(rig.submits()) == 1


# -- the builder by itself


def pack(path: Path, name: str = "") -> PackFile:
    seen = path.stat()
    return PackFile(name or path.name, str(path), Stat(seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino))


@pytest.fixture
def files(tmp_path: Path) -> list[PackFile]:
    made = []
    for name in ("b.tif", "a.tif", "ü x.tif"):
        path = tmp_path / name
        path.write_bytes(name.encode() * 1000)
        made.append(pack(path))
    return made


def builder(folder: Path, **more: int) -> LocalPackages:
    return LocalPackages(
        str(folder / "packages"), LocalTools(str(folder / "tools"), timeout=2), **{"keep_free": 0, **more}
    )


def test_equal_files_give_equal_zips(tmp_path: Path, files: list[PackFile]) -> None:
    one = builder(tmp_path)
    one.build("x/1/u.zip", files, None)
    for file in files:
        Path(file.path).chmod(0o600)
    again = [pack(Path(f.path)) for f in reversed(files)]
    one.build("x/2/u.zip", again, None)
    first = Path(one.path("x/1/u.zip")).read_bytes()
    assert first == Path(one.path("x/2/u.zip")).read_bytes()
    with zipfile.ZipFile(io.BytesIO(first)) as made:
        assert made.testzip() is None
        assert made.namelist() == ["a.tif", "b.tif", "ü x.tif"]
        assert {i.date_time for i in made.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_F30_a_file_that_changes_while_it_is_packed_makes_no_package(tmp_path: Path, files: list[PackFile]) -> None:
    Path(files[1].path).write_bytes(b"other")
    with pytest.raises(FileChanged):
        builder(tmp_path).build("x/1/u.zip", files, None)
    assert tree(tmp_path / "packages") == {}


def test_F76_space_is_asked_for_before_anything_is_written(tmp_path: Path, files: list[PackFile]) -> None:
    with pytest.raises(DiskFull, match="are free"):
        builder(tmp_path, keep_free=10**18).build("x/1/u.zip", files, None)
    assert tree(tmp_path / "packages") == {}


def test_a_name_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(b"x")
    with pytest.raises(LocalError, match="no text"):
        builder(tmp_path).build("x/1/u.zip", [pack(path, "\udcff.tif")], None)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (["raise SystemExit(3)"], "exit code 3"),
        (["print('why'); raise SystemExit(1)"], "why"),
        (["import time; time.sleep(60)"], "took longer"),
        (["pass"], "made no file at {out}"),
        (["import os, signal; os.kill(os.getpid(), 9)"], "signal 9"),
    ],
)
def test_a_tool_that_fails_makes_no_package(tmp_path: Path, files: list[PackFile], code: list[str], said: str) -> None:
    with pytest.raises(ToolFailed) as failed:
        builder(tmp_path).build("x/1/u.bin", files, [*python(tmp_path, *code), "{out}"])
    assert said in str(failed.value)
    assert tree(tmp_path / "packages") == {}


def test_a_tool_is_no_program_here(tmp_path: Path, files: list[PackFile]) -> None:
    with pytest.raises(ToolFailed, match="no program here"):
        builder(tmp_path).build("x/1/u.bin", files, ["/no/such/tool"])


def test_a_tool_has_no_shell_no_input_and_no_secrets(
    tmp_path: Path, files: list[PackFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    code = [
        "import os, sys",
        "open(sys.argv[1], 'w').write(repr((sys.argv[2:], sys.stdin.read(), sorted(os.environ))))",
    ]
    one = builder(tmp_path)
    one.build("x/1/u.bin", files[:1], [*python(tmp_path, *code), "{out}", "$(id); {files}", "{files}"])
    arguments, said, names = eval(Path(one.path("x/1/u.bin")).read_text())
    assert (arguments, said) == (["$(id); {files}", files[0].path], "")
    assert not [n for n in names if n.startswith("AWS_")]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["t", "{files}", "{out}"], ["t", "/a", "/b c", "/o"]),
        (["t", "--out={out}", "{files}"], ["t", "--out=/o", "/a", "/b c"]),
        (["t", "x{files}"], ["t", "x{files}"]),
    ],
)
def test_files_are_several_arguments(command: list[str], words: list[str]) -> None:
    assert expanded(command, ["/a", "/b c"], "/o") == words


def test_what_a_crash_left_is_removed_at_start(tmp_path: Path, files: list[PackFile]) -> None:
    one = builder(tmp_path)
    one.build("x/1/u.zip", files, None)
    one.build("x/2/u.zip", files, None)
    (tmp_path / "packages/x/.work-abc").mkdir()
    (tmp_path / "packages/x/.work-abc/half").touch()
    one.prune(["x/2/u.zip"])
    assert list(tree(tmp_path / "packages")) == ["x/2/u.zip"]
