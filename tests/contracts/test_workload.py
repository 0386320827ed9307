"""A workload in a figure's name, there and back."""

import pytest

from layerwright.tasks.contracts.workload import Workload


@pytest.mark.parametrize(
    ("load", "subject"),
    [
        (Workload(8192), "8192"),
        (Workload(8192, batch=4), "8192.b4"),
        (Workload(512, 32), "512+32"),
        (Workload(512, 32, 16), "512+32.b16"),
    ],
)
def test_a_subject_says_the_workload(load: Workload, subject: str) -> None:
    assert str(load) == subject
    assert Workload.parse(subject) == load


@pytest.mark.parametrize("subject", ["", "0", "8192.b0", "docs", "peak", "8192.4", "1+", "b4", "٣"])
def test_other_subjects_are_none(subject: str) -> None:
    assert Workload.parse(subject) is None
