from __future__ import annotations

import copy

from dev.demo.summary import summary

RUN = {
    "run_id": "demo__1",
    "state": "succeeded",
    "region": "eu-west-1",
    "cluster": {
        "id": "j-1",
        "state": "TERMINATED",
        "release": "emr-spark-8.0.0",
        "engine": "yarn",
        "executors": 2,
        "hosts": 1,
    },
    "images": {"seen": 602, "new": 602, "unchanged": 0, "removed": 0, "loaded": 600, "rejected": 2},
    "rejects_by_code": {"truncated": 1, "not_an_image": 1},
    "metadata_stripped": 12,
    "features": {"rows": 600, "dims": 1280, "model_id": "a" * 64, "engine": "litert", "weights": "path"},
    "pca": {"k": 111, "explained_variance": 0.9501, "n": 600},
    "bytes": {"input": 3_000_000, "pixels": 6_000_000, "features": 3_072_000, "pca": 266_400},
    "quality": {"knn_accuracy_features": 0.9, "knn_accuracy_pca": None, "checks": {"counts": {"ok": True}}},
    "seconds": {"total": 60.2, "load_images": 11},
    "cost": {"forecast_eur": 0.05, "ceiling_eur": 2, "estimate_eur": 0.0312},
}


def line(text, name):
    return next(line for line in text.splitlines() if line.split()[0] == name)


def test_the_summary_answers_what_came_out():
    text = summary(RUN, [])
    assert "600 loaded, 2 rejected" in line(text, "images")
    assert "1 not_an_image, 1 truncated" in line(text, "rejects")
    assert "weights: from a file" in line(text, "features")
    assert "111 of 1280 components keep 95.0%" in line(text, "PCA")
    assert "j-1 in eu-west-1, emr-spark-8.0.0, TERMINATED; yarn, executors: 2, hosts: 1" in line(text, "cluster")
    alone = RUN | {"cluster": RUN["cluster"] | {"engine": "local", "executors": 0, "hosts": 0}}
    assert line(summary(alone, []), "cluster").endswith("emr-spark-8.0.0, TERMINATED")
    assert "0.0312 EUR" in line(text, "cost")
    assert "input 3.0\N{NO-BREAK SPACE}MB → pixels 6.0" in line(text, "volume")


def test_the_summary_says_how_well_photos_are_named_or_why_not():
    assert "names" not in [line.split()[0] for line in summary(RUN, []).splitlines() if line.strip()]
    facts = {"classifier_id": "c", "top1": {"share": 0.8725}, "judged": 51}
    assert "87.2% of 51 photos held out" in line(summary(RUN | {"classifier": facts}, []), "names")
    assert "none: 1 label(s)" in line(summary(RUN | {"classifier": {"failure": "1 label(s)"}}, []), "names")


def test_a_failed_check_is_named():
    run = copy.deepcopy(RUN)
    run["quality"]["checks"]["norms"] = {"ok": False}
    assert "failed: norms" in line(summary(run, []), "quality")


def test_a_run_that_ended_before_its_checks_does_not_say_that_they_passed():
    run = copy.deepcopy(RUN)
    run["quality"] = {"knn_accuracy_features": None, "knn_accuracy_pca": None, "checks": {}}
    assert line(summary(run, []), "quality").split(maxsplit=1)[1] == "not checked"


def test_a_run_that_published_nothing_says_so():
    run = copy.deepcopy(RUN) | {"pca": {}, "cluster": {}, "rejects_by_code": {}}
    text = summary(run, [])
    assert "none" in line(text, "PCA")
    assert "none was created" in line(text, "cluster")
    assert "rejects" not in text.split()[:20]
