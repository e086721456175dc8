from __future__ import annotations

import json

import numpy as np
import pytest
from fruits.classifier import evaluation
from fruits.classifier.discriminant import Calibration, Scores, answer, probabilities
from fruits.classifier.evaluation import NEVER, calibrate, evaluate, expected_calibration_error, wilson

RNG = np.random.default_rng(9)


def overconfident(n: int, factor: float = 20.0) -> tuple[Scores, np.ndarray]:
    """Scores that are too large by a factor, and truths that were drawn from the probabilities without it."""
    values = RNG.normal(0, 1.5, (n, 5))
    shares = probabilities(values, 1.0)
    truth = np.array([RNG.choice(5, p=row) for row in shares])
    return Scores(values * factor, RNG.chisquare(5, n)), truth


def test_the_temperature_undoes_overconfidence():
    scores, truth = overconfident(4000)
    assert calibrate(scores, truth, 0.1).temperature == pytest.approx(20, rel=0.1)


def test_the_thresholds_keep_the_error_on_the_photos_they_are_chosen_on():
    scores, truth = overconfident(4000)
    calibration = calibrate(scores, truth, 0.1)
    answers = answer(scores, Calibration(calibration.temperature, calibration.min_confidence, np.inf))
    wrong = answers.ranked[answers.is_known, 0] != truth[answers.is_known]
    assert 0.08 < wrong.mean() <= 0.1
    assert np.mean(scores.distances > calibration.max_distance) == pytest.approx(0.1, abs=0.01)


def test_when_no_threshold_keeps_the_error_nothing_is_answered():
    scores = Scores(np.array([[9.0, 0.0], [8.0, 0.0]]), np.ones(2))
    assert calibrate(scores, np.array([1, 1]), 0.1).min_confidence == NEVER


def test_an_evaluation_is_right_and_its_own_photos_do_not_calibrate_it():
    scores, truth = overconfident(2000)
    result = evaluate(scores, truth, np.arange(2000) % 5, list("abcde"), 0.1)
    first = scores.values.argmax(axis=1)
    assert result["top1"]["share"] == pytest.approx((first == truth).mean())
    assert result["top1"]["low"] < result["top1"]["share"] < result["top1"]["high"]
    assert result["top3"]["share"] > result["top1"]["share"]
    assert result["calibration_error"] < 0.05 < result["calibration_error_raw"] / 2
    assert sum(count for count, _, _ in result["reliability"]) == 2000
    answered = [share for _, share, _ in result["by_confidence"]]
    assert (answered[0], answered) == (1.0, sorted(answered, reverse=True))
    of_a = result["labels"]["a"]
    assert of_a["recall"]["share"] == pytest.approx((first[truth == 0] == 0).mean())
    assert of_a["precision"]["share"] == pytest.approx((truth[first == 0] == 0).mean())
    assert sum(count for _, _, count in result["confusion"]) == 2000
    json.dumps(result, allow_nan=False)


def test_the_calibration_of_a_fold_comes_from_the_other_folds(monkeypatch):
    scores, truth = overconfident(60)
    seen: list[int] = []
    monkeypatch.setattr(
        evaluation, "calibrate", lambda part, *rest: (seen.append(len(part.values)), calibrate(part, *rest))[1]
    )
    evaluate(scores, truth, np.repeat([0, 1, 2], [10, 20, 30]), list("abcde"), 0.1)
    assert seen == [50, 40, 30]


def test_a_thousand_labels_and_labels_that_are_never_judged_stay_within_the_size_of_the_metrics():
    values = RNG.normal(0, 1, (900, 1000))
    names = [f"Label {number} {'é' * 900}" for number in range(1000)]
    truth = np.concatenate([np.full(300, 999), RNG.integers(0, 950, 600)])
    result = evaluate(Scores(values, np.ones(900)), truth, np.arange(900) % 5, names, 0.1)
    assert (len(result["labels"]), result["labels_left_out"]) == (100, 900)
    of_most_frequent = next(rates for name, rates in result["labels"].items() if name.startswith("Label 999 "))
    assert of_most_frequent["recall"]["n"] == 300, "the most frequent are kept"
    assert len(result["confusion"]) == 400
    assert sum(n for _, _, n in result["confusion"]) + result["confusion_left_out"] == 900
    assert len(json.dumps(result)) < 600_000


def test_a_label_that_is_never_judged_has_no_recall():
    scores, truth = overconfident(100)
    result = evaluate(scores, np.minimum(truth, 3), np.arange(100) % 5, list("abcde"), 0.1)
    assert result["labels"]["e"]["recall"] == {"share": None, "low": 0.0, "high": 1.0, "n": 0}


@pytest.mark.parametrize("letter", ["a", "\u7f8e"])
def test_labels_as_long_as_the_key_of_an_object_stay_within_the_size_of_the_metrics(letter: str) -> None:
    """Whoever uploads names the folders, and a night whose metrics cannot be read is red."""
    names = [letter * (1000 // len(letter.encode())) + str(number) for number in range(60)]
    values = RNG.normal(0, 1, (900, 60))
    result = evaluate(Scores(values, np.ones(900)), RNG.integers(0, 60, 900), np.arange(900) % 5, names, 0.1)
    assert len(json.dumps(result)) < 700_000, "at most 1,000,000 bytes are read"
    cells = {name for true, named, _ in result["confusion"] for name in (true, named)}
    assert max(map(len, cells | set(result["labels"]))) <= 500, "the schema's longest name"


def test_the_calibration_error_of_a_coin_that_says_so_is_nothing_and_of_a_boaster_large():
    heads = np.array([True, False] * 50)
    assert expected_calibration_error(np.full(100, 0.5), heads) == pytest.approx(0)
    assert expected_calibration_error(np.full(100, 1.0), heads) == pytest.approx(0.5)


@pytest.mark.parametrize(("hits", "n", "low", "high"), [(0, 10, 0.0, 0.278), (10, 10, 0.722, 1.0), (0, 0, 0.0, 1.0)])
def test_wilsons_interval_holds_at_the_ends(hits, n, low, high):
    assert wilson(hits, n) == pytest.approx((low, high), abs=0.001)
