"""The calibration of hit@1, 3 and 5 that a bundle carries, from the answers of its hold-out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from firstspin.evaluation import metrics
from firstspin.evaluation.cohorts import picks_of
from firstspin.evaluation.cross_validation import HoldOutAnswers
from firstspin.models.calibration import MILLION, TOPS, HoldOutCalibration, Predicted, hold_out_bins
from firstspin.records import Examples


def hold_out_calibration(
    answers: Mapping[Predicted, HoldOutAnswers], users: Examples, refit: float = 0.0
) -> HoldOutCalibration:
    """The calibration of each predictor's answers for the same held-out users (n,).

    `refit`: the share that they are of the users on whom the predictors are trained afterwards.
    """
    picks = [picks_of(registration) for registration in users.registrations]
    return HoldOutCalibration(
        tuple(
            one
            for predicted, of in answers.items()
            for top in TOPS
            for one in hold_out_bins(
                predicted,
                picks,
                top,
                np.minimum(of.shown_before[:, top].astype(np.int64), MILLION),
                metrics.hit(of.position, top) > 0,
                refit,
            )
        )
    )
