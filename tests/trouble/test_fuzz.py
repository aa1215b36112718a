"""A few hundred damaged files for each parser, the same ones in every run; `make fuzz` tries more."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trouble.fuzz import PARSERS, attempt, examples

SLOW = {"weights .pt", "chunk", "zarr.json", "scores parquet", "manifest"}
"""Parsers of which fewer are tried: a millisecond or more each."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("parser", PARSERS)
def test_damage_ends_in_one_line_or_is_read(parser):
    few = settings(
        max_examples=30 if parser in SLOW else 80,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )

    @few
    @given(data=st.data())
    def run(data):
        attempt(parser, data.draw(examples(parser)))

    run()
