"""Each safety step that tests/mutations.py removes is still in the code, word for word, once."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutations import MUTATIONS, Mutation

TOP = Path(__file__).parents[2]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.step)
def test_the_step_is_there_to_be_removed(mutation: Mutation) -> None:
    assert (TOP / mutation.file).read_text().count(mutation.old) == 1
    assert (TOP / mutation.tests.partition("::")[0]).exists()
