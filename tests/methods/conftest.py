"""Methods whose members draw nothing."""

import pytest


@pytest.fixture(autouse=True)
def without_pictures(no_pictures):
    """Of the members."""
