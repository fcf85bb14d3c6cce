"""The built-in list of names that are no recordings."""

from __future__ import annotations

import os

import pytest

from ncaasd.adapters.files.names import Ignoring
from ncaasd.declare import ignored


@pytest.mark.parametrize(
    "name", ["2024_01.tif", "x.partx", "part.tif", "recycle", "@x.tif", "#x.tif", "tmp", "x.tmp.tif"]
)
def test_the_built_in_list_means_no_recording(name: str) -> None:
    assert not Ignoring(ignored.names())(f"M7/{name}")


def test_every_built_in_name_is_said_to_be_somebodys() -> None:
    assert all(entry.whose and entry.names for entry in ignored.BUILT_IN)
    assert set(ignored.names()) >= ignored.FOLDERS
    assert len(ignored.names()) == sum(len(entry.names) for entry in ignored.BUILT_IN)
    assert os.sep not in "".join(ignored.names())
