"""Why a download ended, from what it wrote as its last word."""

from __future__ import annotations

import pytest

from ai_sandbox_operator.api.conditions import Reason
from ai_sandbox_operator.fetch.failures import FetchError, FetchFailure
from ai_sandbox_operator.observed import diagnosis, fetch_result


@pytest.mark.parametrize("failure", FetchFailure)
def test_every_failure_of_a_fetch_has_a_reason_and_keeps_its_detail(failure: FetchFailure) -> None:
    found = fetch_result.finding(str(FetchError(failure, "the detail of it")))
    assert found is not None
    assert "the detail of it" in found.message
    assert found.permanent is failure.permanent
    # The remedy is told once, by the reason or as advice.
    assert failure.value.remedy not in found.message
    assert (found.reason is Reason.FetchFailed) is (failure.name not in fetch_result.REASONS)
    if found.reason is Reason.FetchFailed:
        assert found.advice == failure.value.remedy


def test_every_reason_is_of_a_failure_that_exists() -> None:
    assert set(fetch_result.REASONS) <= set(FetchFailure.__members__)


@pytest.mark.parametrize("message", ["", "boom", "NoSuchName: boom", "Traceback: NotFound: x"])
def test_other_words_are_no_result_of_a_fetch(message: str) -> None:
    assert fetch_result.finding(message) is None


def test_a_pod_whose_download_failed_tells_the_reason() -> None:
    message = str(FetchError(FetchFailure.GatedNoToken, "acme/m is gated and there is no token"))
    ended = {"terminated": {"exitCode": 78, "reason": "Error", "message": message}}
    pod = {
        "metadata": {"name": "demo-fetch-1", "uid": "u"},
        "status": {
            "phase": "Failed",
            "containerStatuses": [{"name": "fetch", "restartCount": 0, "state": ended}],
        },
    }
    found = diagnosis.diagnose([pod])
    assert found == diagnosis.Finding(
        Reason.ModelGatedNoToken, "acme/m is gated and there is no token", permanent=True
    )
