from __future__ import annotations

import numpy as np
import pytest
from fruits.base.errors import NoClassifierError
from fruits.classifier import discriminant
from fruits.classifier.discriminant import Calibration, Scores, answer
from fruits.classifier.label_sums import LabelSums
from fruits.pca import gramian, principal_components
from sklearn.covariance import shrunk_covariance
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

RNG = np.random.default_rng(7)
SURE = Calibration(1.0, 0.0, np.inf)


def fruits(labels: int, each: int, dims: int = 12) -> tuple[np.ndarray, list[str]]:
    """Features of fruits, already multiples of 2**-14 as the sums have them, in an order that mixes the labels."""
    centres = RNG.uniform(1, 5, (labels, dims))
    names = [f"Label {number:04}" for number in range(labels)] * each
    values = np.array([centres[int(name[6:])] for name in names]) + RNG.normal(0, 0.4, (labels * each, dims))
    return (np.rint(values.clip(0, 6) * 2**14) / 2**14).astype(np.float32), names


def fitted(features: np.ndarray, labels: list[str], k: int = 6, shrinkage: float = 0.2):
    total = gramian.Gramian(features.shape[1])
    total.add(features)
    pca = principal_components.fit(total, "m", k=k)
    sums = LabelSums(features.shape[1])
    sums.add(labels, features)
    return discriminant.fit(sums, pca, shrinkage), pca


@pytest.mark.parametrize("shrinkage", [0.01, 0.2, 1.0])
@pytest.mark.parametrize("solver", ["lsqr", "eigen"])
@pytest.mark.parametrize("labels", [2, 5])
def test_scores_and_probabilities_are_those_of_scikit_learn(shrinkage, solver, labels):
    features, names = fruits(labels, 30)
    features, names = features[: labels * 30 - 11], names[: labels * 30 - 11]  # labels of unequal size
    ours, pca = fitted(features, names, shrinkage=shrinkage)
    vectors = (features - pca.mean) @ pca.components.T
    theirs = LinearDiscriminantAnalysis(solver=solver, shrinkage=shrinkage).fit(vectors, names)
    new = RNG.normal(0, 1, (40, 6)).astype(np.float32)
    assert ours.labels == theirs.classes_.tolist()
    shares = discriminant.probabilities(ours.score(new).values, 1.0)
    np.testing.assert_allclose(shares, theirs.predict_proba(new.astype(np.float64)), atol=1e-6)
    if labels > 2:
        scores = ours.score(new).values
        expected = theirs.decision_function(new.astype(np.float64))
        np.testing.assert_allclose(
            scores - scores.mean(axis=1, keepdims=True), expected - expected.mean(axis=1, keepdims=True), atol=1e-6
        )


def test_the_distance_is_that_of_mahalanobis_from_the_nearest_label():
    features, names = fruits(3, 20)
    ours, pca = fitted(features, names, shrinkage=0.3)
    vectors = (features - pca.mean) @ pca.components.T
    means = np.stack([vectors[[name == label for name in names]].mean(axis=0) for label in ours.labels])
    within = np.mean([np.cov(vectors[[name == label for name in names]].T, bias=True) for label in ours.labels], axis=0)
    inverse = np.linalg.inv(shrunk_covariance(within, 0.3))
    point = vectors[:1].astype(np.float32)
    expected = min(float((point[0] - mean) @ inverse @ (point[0] - mean)) for mean in means)
    assert ours.score(point).distances[0] == pytest.approx(expected, rel=1e-5)


def test_the_same_photos_in_any_order_give_the_same_classifier_to_the_bit():
    features, names = fruits(4, 20)
    order = RNG.permutation(len(names))
    first, _ = fitted(features, names)
    second, _ = fitted(features[order], [names[row] for row in order])
    for name in ("whitening", "means", "log_priors"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()


def test_a_label_with_a_single_photo_is_learned_beside_others():
    features, names = fruits(3, 10)
    rows = [row for row, name in enumerate(names) if name != "Label 0002" or row == 2]
    ours, pca = fitted(features[rows], [names[row] for row in rows])
    ranked = answer(ours.score(pca.project(features[2:3])), SURE).ranked
    assert ours.labels[ranked[0, 0]] == "Label 0002"


def test_a_thousand_labels_are_learned():
    features, names = fruits(1000, 2)
    ours, pca = fitted(features, names)
    ranked = answer(ours.score(pca.project(features)), SURE).ranked
    assert np.mean([ours.labels[row[0]] == name for row, name in zip(ranked, names, strict=True)]) > 0.5


def test_without_two_photos_of_a_label_there_is_no_classifier():
    with pytest.raises(NoClassifierError, match="no two photos of a label differ"):
        fitted(*fruits(9, 1), k=4)


def test_an_answer_is_given_when_it_is_sure_and_near_enough():
    scores = Scores(np.array([[3.0, 0.0, 1.0], [0.2, 0.0, 0.1], [0.0, 5.0, 0.0]]), np.array([1.0, 1.0, 99.0]))
    answers = answer(scores, Calibration(1.0, 0.6, 50.0))
    assert answers.ranked.tolist() == [[0, 2, 1], [0, 2, 1], [1, 0, 2]]
    assert answers.is_known.tolist() == [True, False, False]
    softer = answer(scores, Calibration(10.0, 0.6, 50.0))
    assert softer.confidence[0] < answers.confidence[0]
    assert not softer.is_known[0]


def test_a_vector_that_is_not_finite_is_not_known_and_the_one_beside_it_is():
    ours, _ = fitted(*fruits(2, 10))
    vectors = np.full((2, 6), np.nan, np.float32)
    vectors[1] = 0
    answers = answer(ours.score(vectors), Calibration(1.0, 0.1, np.inf))
    assert (answers.confidence[0], answers.is_known.tolist()) == (0.0, [False, True])
