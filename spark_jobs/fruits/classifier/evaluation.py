"""How good a classifier is on photos that it has not learned from, and its calibration.

What is fitted on held-out photos (temperature, thresholds) is judged on others: by cross-fitting over groups of photos.
The published calibration is then fitted on all of them.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fruits.classifier.discriminant import Answers, Calibration, Scores, answer, probabilities

Float = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]

NEVER = 2.0  # the least confidence when no threshold keeps the error: no answer is ever given
_BINS = 10
_LEVELS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
_MOST_LABELS = 100
_MOST_CELLS = 400
MOST_CHARACTERS = 100  # of a label: whoever uploads chooses its length, and a reader of metrics refuses long ones


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Return the Wilson score interval of a share, 95 % by default; (0, 1) without any trials."""
    if not n:
        return 0.0, 1.0
    share, squared = hits / n, z * z
    centre = (share + squared / (2 * n)) / (1 + squared / n)
    half = z * math.sqrt(share * (1 - share) / n + squared / (4 * n * n)) / (1 + squared / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def calibrate(scores: Scores, truth: Places, error: float) -> Calibration:
    """Fit the temperature of least cross-entropy, and the thresholds that keep an error.

    `truth` has the place of each photo's own label. `error` is the largest share of wrong answers among the confident
    ones, and the share of known fruit that may be taken for something never seen.
    """
    temperature = _fit_temperature(scores.values, truth)
    answers = answer(scores, Calibration(temperature, 0.0, np.inf))
    order = np.argsort(-answers.confidence, kind="stable")
    wrong = np.cumsum(answers.ranked[order, 0] != truth[order]) / np.arange(1, len(truth) + 1)
    kept = np.flatnonzero(wrong <= error)
    least = float(answers.confidence[order[kept[-1]]]) if len(kept) else NEVER
    return Calibration(temperature, least, float(np.quantile(scores.distances, 1 - error)))


def _fit_temperature(values: Float, truth: Places) -> float:
    """Minimize the cross-entropy, which has a single minimum over the logarithm of the temperature."""

    def loss(logarithm: float) -> float:
        shares = probabilities(values, math.exp(logarithm))
        return -float(np.log(np.maximum(shares[np.arange(len(truth)), truth], 1e-300)).mean())

    low, high = math.log(0.05), math.log(1000.0)
    for _ in range(25):
        first, second = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, second) if loss(first) <= loss(second) else (first, high)
    return math.exp((low + high) / 2)


def expected_calibration_error(confidence: Float, correct: Flags) -> float:
    """Return the mean difference between confidence and accuracy over bins of equal width, weighted by photos."""
    return sum(count * abs(sure - right) for count, sure, right in _reliability(confidence, correct)) / len(correct)


def _reliability(confidence: Float, correct: Flags) -> list[tuple[int, float, float]]:
    """Return the photos, the mean confidence and the accuracy of each bin that has photos."""
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    members = [bins == number for number in np.unique(bins)]
    return [(int(own.sum()), float(confidence[own].mean()), float(correct[own].mean())) for own in members]


def evaluate(scores: Scores, truth: Places, folds: Places, labels: Sequence[str], error: float) -> dict[str, Any]:
    """Judge a classifier on held-out photos: those of a fold with a calibration that is fitted on the other folds.

    Returns:
        The evaluation as JSON has it; shares are 0 to 1, an interval holds the share with 95 %. It is bounded: the
        most frequent labels and confusions are in it, and the number of the others; long labels are cut.
    """
    shape = (len(truth), min(3, len(labels)))
    answers = Answers(np.zeros(shape, np.int64), np.zeros(len(truth)), np.zeros(len(truth), bool))
    for fold in np.unique(folds):
        own = folds == fold
        calibration = calibrate(Scores(*(part[~own] for part in scores)), truth[~own], error)
        for whole, part in zip(answers, answer(Scores(*(part[own] for part in scores)), calibration), strict=True):
            whole[own] = part
    raw = answer(scores, Calibration(1.0, 0.0, np.inf)).confidence
    first, known, confidence = answers.ranked[:, 0], answers.is_known, answers.confidence
    correct, among_three = first == truth, (answers.ranked == truth[:, None]).any(axis=1)
    cells = Counter(zip(truth.tolist(), first.tolist(), strict=True)).most_common()
    names, counts = [label[:MOST_CHARACTERS] for label in labels], np.bincount(truth, minlength=len(labels))
    frequent = sorted(np.argsort(-counts, kind="stable")[:_MOST_LABELS].tolist())
    return {
        "judged": len(truth),
        "top1": rate(correct),
        "top3": rate(among_three),
        "answered": rate(known),
        "wrong_answers": rate(~correct[known]),
        "calibration_error": expected_calibration_error(confidence, correct),
        "calibration_error_raw": expected_calibration_error(raw, correct),
        "reliability": _reliability(confidence, correct),
        "by_confidence": [
            (level, float((confidence >= level).mean()), rate(correct[confidence >= level])["share"])
            for level in _LEVELS
        ],
        "labels": {
            names[place]: {"precision": rate(correct[first == place]), "recall": rate(correct[truth == place])}
            for place in frequent
        },
        "labels_left_out": len(labels) - len(frequent),
        "confusion": [(names[true], names[name], n) for (true, name), n in cells[:_MOST_CELLS]],
        "confusion_left_out": sum(n for _, n in cells[_MOST_CELLS:]),
    }


def rate(flags: Flags) -> dict[str, Any]:
    """Return the share of flags that are set, with its interval and the number of flags; None without any."""
    low, high = wilson(int(flags.sum()), len(flags))
    return {"share": float(flags.mean()) if len(flags) else None, "low": low, "high": high, "n": len(flags)}
