from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from firstspin.experiment.stats.holm import holm_levels, holm_p_values


def test_corrected_p_values_and_levels_are_those_of_statsmodels() -> None:
    rng = np.random.default_rng(1)
    for n in (1, 2, 3, 3, 4, 4, 6, 6):
        p = list(rng.random(n) ** 4)
        rejected, corrected, *_ = multipletests(p, 0.05, method="holm")
        assert holm_p_values(p) == pytest.approx(list(corrected))
        assert [one <= level for one, level in zip(p, holm_levels(p, 0.05), strict=True)] == list(rejected)


def test_one_arm_needs_no_correction_and_the_smallest_of_three_the_strictest() -> None:
    assert holm_levels([0.04], 0.05) == [0.05]
    assert holm_levels([0.03, 0.001, 0.02], 0.06) == pytest.approx([0.06, 0.02, 0.03])
    # the second fails at 0.025, so the third is held to that too, and not to its own 0.05
    assert holm_levels([0.001, 0.03, 0.04], 0.05) == pytest.approx([0.05 / 3, 0.025, 0.025])
