"""Addresses in S3, as people and NeuroCAAS write them. `split_checked` is in test_submission.py."""

from __future__ import annotations

import pytest

from ncaasd.neurocaas.addresses import address_of, is_address, split


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("s3://lab/a/b.tif", ("lab", "a/b.tif")),
        ("s3://lab/", ("lab", "")),
        ("s3://lab", ("lab", "")),
        ("s3:///a.tif", ("", "a.tif")),
        ("s3://LAB/s3://x", ("LAB", "s3://x")),  # as it is written, good or not
        ("S3://lab/a.tif", None),
        ("lab/s3://a.tif", None),
        ("", None),
    ],
)
def test_an_address_is_told_and_split(text: str, parts: tuple[str, str] | None) -> None:
    assert is_address(text) is (parts is not None)
    if parts is not None:
        assert split(text) == parts
        return
    with pytest.raises(ValueError, match="is no s3:// address"):
        split(text)


def test_an_address_is_made_as_it_is_split() -> None:
    assert split(address_of("lab", "a/b c.tif")) == ("lab", "a/b c.tif")
