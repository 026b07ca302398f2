"""Every reason is on the page of troubleshooting, with what to do about it."""

from __future__ import annotations

import pathlib

import pytest

from ai_sandbox_operator.api.conditions import ConditionType, Reason
from ai_sandbox_operator.observed import troubleshooting
from ai_sandbox_operator.observed.engine_signatures import SIGNATURES

PAGE = (pathlib.Path(__file__).parents[3] / troubleshooting.PATH).read_text()


def test_the_page_is_current() -> None:
    assert troubleshooting.page(PAGE) == PAGE, "run make generate"


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_told_once_with_its_remedy(reason: Reason) -> None:
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{reason.name}` |")]
    assert reason.doc.meaning in row
    assert reason.doc.remedy.replace("<", "&lt;") in row
    assert reason.doc.meaning.endswith(".")
    assert reason.doc.remedy.endswith(".")


def test_sections_are_named_after_conditions() -> None:
    sections = troubleshooting.sections()
    assert [reason for each in sections.values() for reason in each] == list(Reason)
    for title in sections:
        assert any(condition in title for condition in ConditionType), title


def test_every_signature_is_on_the_page() -> None:
    for row in SIGNATURES:
        for words in row.texts:
            assert words in PAGE


def test_a_page_without_the_marker_is_refused() -> None:
    with pytest.raises(ValueError, match="lacks the line"):
        troubleshooting.page("# Troubleshooting\n")


def test_the_beginning_is_kept_and_the_rest_is_made_anew() -> None:
    old = f"by hand\n{troubleshooting.MARKER}\nold"
    assert troubleshooting.page(old) == f"by hand\n{troubleshooting.MARKER}\n\n{troubleshooting.reference()}"
