"""Runs the filter's tests with the page-state table on chip, and those that say so with the table in memory too."""

import pytest

from tests.hw.tzasc.bench import variant


def pytest_generate_tests(metafunc):
    """A module's ``CACHE_LINES`` are the variants of the table that its tests run with."""
    if variants := getattr(metafunc.module, "CACHE_LINES", None):
        names = ["on_chip" if lines is None else f"cached{lines}" for lines in variants]
        metafunc.parametrize("table_variant", variants, ids=names, indirect=True)


@pytest.fixture(autouse=True)
def table_variant(request, monkeypatch):
    """The variant of the running test."""
    monkeypatch.setattr(variant, "cache_lines", getattr(request, "param", None))
