"""Each right that the everyday run does not take away: without it, that very request is refused.

About ten minutes: `pytest -m slow tests/chart/test_rights_sweep.py`.
"""

from __future__ import annotations

import pathlib

import pytest

from chart import account, helm
from chart.test_rights import RIGHTS, SAMPLE, refused_at, row
from lab.cluster.lab import Lab
from results import Results

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("right", [right for right in RIGHTS if right not in SAMPLE], ids="-".join)
async def test_without_any_one_right_the_same_life_is_refused_that_very_request(
    lab: Lab, newest: helm.Helm, tmp_path: pathlib.Path, right: account.Use, results: Results
) -> None:
    stage = await refused_at(lab, newest, tmp_path, right)
    results.row("rights", row(right, f"refused when {stage}; shown by the slow sweep"))
