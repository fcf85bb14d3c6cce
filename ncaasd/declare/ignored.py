"""Names of files and folders that are no recordings: ignored unless `watch.ignore_defaults` is false. docs/config.md shows them.

A name here is ignored wherever it is, so each is one that no recording has: a folder that file systems, network storage and
synchronising programs keep for themselves, or a file that a program has not finished. Conflict copies are not here, because
one may be the only copy of a recording: see `plan/copies`.
"""

from __future__ import annotations

from typing import NamedTuple


class Ignored(NamedTuple):
    """Names of files and folders, as patterns, and whose they are."""

    whose: str
    names: tuple[str, ...]


BUILT_IN = (
    Ignored(
        "hidden files and folders: of Linux and macOS (`._x.tif`, `.DS_Store`, `.Trash-1000`, `.Trashes`, `.Spotlight-V100`, "
        "`.fseventsd`, `.TemporaryItems`), of storage (`.snapshot`, `.zfs`, `.recycle`), of Syncthing, Dropbox, Resilio "
        "(`.stfolder`, `.stversions`, `.dropbox.cache`, `.sync`), rsync's half copies (`.x.tif.Ab12Cd`)",
        (".*",),
    ),
    Ignored("Synology", ("#recycle", "#snapshot", "@eaDir", "@tmp", "@sharebin")),
    Ignored("QNAP", ("@Recycle", "@Recently-Snapshot")),
    Ignored("Buffalo", ("trashbox",)),
    Ignored(
        "Windows",
        ("$RECYCLE.BIN", "$Recycle.Bin", "RECYCLER", "System Volume Information", "Thumbs.db", "thumbs.db", "ehthumbs.db",
         "desktop.ini", "Desktop.ini", "FOUND.000", "found.000"),
    ),
    Ignored("ext4 and other Linux file systems", ("lost+found",)),
    Ignored("macOS on old shares", ("Network Trash Folder", "Temporary Items", "TheVolumeSettingsFolder")),
    Ignored("temporary and lock files: Office (`~$x`), NetApp (`~snapshot`), Syncthing on Windows", ("~*",)),
    Ignored("editors' copies", ("*~", "*.swp")),
    Ignored("half copies: of any program, rclone, Firefox", ("*.tmp", "*.TMP", "*.temp", "*.part", "*.partial")),
    Ignored("half copies: WinSCP, FileZilla, lftp", ("*.filepart", "*.lftp-pget-status")),
    Ignored(
        "half downloads: Chrome and Edge, Safari, Opera, aria2's note of one",
        ("*.crdownload", "*.download", "*.opdownload", "*.aria2"),
    ),
    Ignored(
        "half copies: Resilio and BitTorrent Sync, µTorrent, qBittorrent, BitComet",
        ("*.!sync", "*.bts", "*.!ut", "*.!qB", "*.bc!"),
    ),
)  # fmt: skip

# The event log says once that such a folder is there and ignored: a person may look for a recording in it.
FOLDERS = frozenset(
    {"#recycle", "#snapshot", "@eaDir", "@Recycle", "@Recently-Snapshot", "$RECYCLE.BIN", "$Recycle.Bin", "RECYCLER",
     "System Volume Information", "lost+found", "FOUND.000", "found.000", "trashbox", "Network Trash Folder"}
)  # fmt: skip


def names() -> tuple[str, ...]:
    """The built-in patterns, each once."""
    return tuple(dict.fromkeys(name for entry in BUILT_IN for name in entry.names))
