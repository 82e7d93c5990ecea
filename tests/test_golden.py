"""Reconstructions that were kept come out again: as many evaluations, the same objectives."""

import json

import golden
import pytest

KEPT = json.loads(golden.KEPT.read_text())


@pytest.mark.filterwarnings("ignore:.*LPIPS")
@pytest.mark.parametrize("name", golden.PROBLEMS)
def test_kept_reconstructions_come_out_again(name):
    now = golden.figures(name)
    assert now["evaluations"] == KEPT[name]["evaluations"]
    for fit, values in KEPT[name]["objective"].items():
        assert now["objective"][fit] == pytest.approx(values, rel=1e-6)
