"""What errors mean, where no hub is needed to raise them."""

from __future__ import annotations

import errno

import pytest

from ai_sandbox_operator.desired import fetch
from ai_sandbox_operator.fetch import failures
from ai_sandbox_operator.fetch.failures import FetchFailure

MODEL = "acme/tiny"


def classify(error: BaseException) -> failures.FetchError:
    return failures.classify(error, model=MODEL, revision="main", has_token=False)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_volume_is_told_whatever_it_is_wrapped_in(number: int) -> None:
    error = RuntimeError("download failed")
    error.__cause__ = OSError(number, "No space left on device")
    assert classify(error).failure == FetchFailure.DiskFull


def test_what_is_not_known_is_passed_on_shortened() -> None:
    found = classify(RuntimeError("x" * 5000))
    assert found.failure == FetchFailure.Unexpected
    assert len(str(found)) < 1000


def test_permanent_failures_share_the_code_that_ends_the_job_and_the_others_are_told_apart() -> None:
    codes = [failure.code for failure in FetchFailure if not failure.permanent]
    assert len(set(codes)) == len(codes)
    # 0: success; 1 and 2: Python's own; above 127: signals.
    assert not {0, 1, 2, failures.EXIT_PERMANENT} & set(codes)
    assert max(codes) < 126
    assert failures.EXIT_PERMANENT == fetch.EXIT_PERMANENT
    assert all(failure.name == failure.value.name for failure in FetchFailure)


def test_remedies_are_sentences() -> None:
    for failure in FetchFailure:
        assert failure.value.remedy.endswith("."), failure
