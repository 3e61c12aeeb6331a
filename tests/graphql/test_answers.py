"""What Dagster says reaches people in plain words."""

import pytest

from kaapana_assets.graphql.answers import told

SAID = {
    "an error with its frame and the exception's name": (
        "Error occurred while executing op x:\nkaapana_assets.errors.NotFound: no cohort 'all'",
        "no cohort 'all'",
    ),
    "a run whose process is gone": (
        "This run has been marked as failed from outside the execution context.",
        "the run's process ended: it was killed, it ran out of memory, or its machine stopped",
    ),
}


@pytest.mark.parametrize(("said", "expected"), SAID.values(), ids=SAID)
def test_an_error_is_told_in_plain_words(said, expected):
    assert told(said) == expected
