"""results.json has exactly the keys that were asked for, and the README's tables are what it gives."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

pytest.importorskip("numpy")
pytest.importorskip("psutil")

from bench import page, readme, results
from bench.suite import FULL, PCA_PEERS, PEERS, QUICK, Run, Sizes

pytestmark = pytest.mark.slow

MACHINE = {"cpu": "a processor", "cores": 2, "memory_gib": 24, "date": "2026-01-01", "commit": "abc"}
ASKED = {
    "machine": {"cpu", "cores"},
    "load": {"fruits_img_s", "binaryfile_img_s"},
    "featurize": {"fruits_img_s", "no_spark_limit_img_s", "notebook_img_s", "peers_img_s"},
    "pca": {"20000", "100000"},
    "night": {
        "full_executor_s", "one_percent_executor_s", "full_wall_s", "one_percent_wall_s", "nothing_new_wall_s"
    },
    "scaling": {"workers", "images"},
    "peak_memory_mb": {"1000", "20000"},
}  # fmt: skip


def chain(size: int, workers: int, repeat: int, section: str = "chain", name: str = "fruits") -> Run:
    took = 5 + size / 200 / workers + repeat
    jobs = {
        stage: {"seconds": took, "stage_s": took - 4, "executor_s": took * workers}
        for stage in results.STAGES
    }
    figures = {
        "wall_s": 4 * took, "start_s": 20.0, "executor_s": 4 * took * workers, "jobs": jobs, "driver_mb": 900,
        "worker_mb": 200, "bytes": {"load_images": {"input": 5 * size, "pixels": 12 * size}},
    }  # fmt: skip
    return Run(section, name, size, workers, repeat, figures, 0.5)


def made_up(sizes: Sizes) -> list[Run]:
    runs = []
    for repeat in range(sizes.repeats):
        runs += [chain(size, 2, repeat) for size in {sizes.peers, *sizes.images}]
        runs.append(chain(sizes.peers, 1, repeat))
        runs += [
            chain(sizes.images[-1], 2, repeat, "night", kind)
            for kind in ("full", "one_percent", "nothing_new")
        ]
        for size in filter(None, (sizes.peers, sizes.small)):
            for name in [*PEERS, "binaryfile"]:
                figures = {"seconds": 10 + size / 100 + repeat, "memory_mb": 500, "max_difference": 1e-5}
                runs.append(Run("peers", name, size, 2, repeat, figures, 0.5))
        for rows in sizes.pca:
            for name in ("fruits", *PCA_PEERS):
                figures = {
                    "seconds": 3.0 + rows / 50_000 + repeat,
                    "max_relative_error": 1e-9,
                    "subspace_sine": 1e-6,
                }
                runs.append(Run("pca", name, rows, 2, repeat, figures, 0.5))
    return runs


@pytest.fixture(params=[FULL, QUICK], ids=lambda sizes: sizes.name)
def found(request: pytest.FixtureRequest) -> dict[str, object]:
    return results.summarize(made_up(request.param), request.param, 2, dict(MACHINE))


def test_every_key_that_was_asked_for_is_there(found: dict) -> None:
    assert {"images", "repeats", *ASKED} <= found.keys()
    for part, keys in ASKED.items():
        assert keys <= found[part].keys(), part
    assert set(found["featurize"]["peers_img_s"]) == set(results.PEER_KEYS)
    assert set(found["scaling"]["workers"]) == {"1", "2"}
    assert {"1000", "5000", "20000"} <= found["scaling"]["images"].keys()
    assert json.loads(json.dumps(found)) == found


def test_a_full_run_leaves_no_figure_empty() -> None:
    found = results.summarize(made_up(FULL), FULL, 2, dict(MACHINE))
    for part in ("load", "featurize", "night", "ratios"):
        assert all(value is not None for value in found[part].values()), part
    assert set(found["pca"]["100000"]) == {"fruits_s", "mllib_s", "sklearn_s", "max_relative_error"}
    assert found["peak_memory_mb"]["20000"] == {"driver": 900, "worker": 200}


def test_the_median_counts_and_not_the_mean() -> None:
    runs = [Run("pca", "mllib", 20000, 2, n, {"seconds": s}) for n, s in enumerate((1.0, 2.0, 90.0))]
    assert results.pca(results.Summary(runs), QUICK, 2)["20000"]["mllib_s"] == 2.0


def test_starting_up_cancels_out_of_what_each_further_photo_costs() -> None:
    assert results.marginal((200, 2000), (11.0, 29.0)) == 100.0
    assert results.marginal((200, 2000), (None, 29.0)) is None


def test_a_row_is_summed_on_all_cores_of_the_driver() -> None:
    found = results.summarize(made_up(FULL), FULL, 2, dict(MACHINE))
    assert found["details"]["core_ms_per_further_image"]["reduce_pca"] == 0.04
    quick = results.summarize(made_up(QUICK), QUICK, 2, dict(MACHINE))
    assert quick["details"]["core_ms_per_further_image"]["reduce_pca"] is None, "of one size"


def test_it_is_said_which_commit_was_measured_and_where_sections_differ() -> None:
    runs = [replace(run, commit="abc" if run.section == "pca" else "old") for run in made_up(FULL)]
    mixed = results.summarize(runs, FULL, 2, dict(MACHINE))
    assert "pca at commit abc; chain, night, peers at commit old; medians of 3" in page.setting(mixed)
    alike = results.summarize([replace(run, commit="old") for run in runs], FULL, 2, dict(MACHINE))
    assert " commit old; medians of 3" in page.setting(alike)


def test_the_page_is_whole_and_needs_no_network(found: dict) -> None:
    html = page.render(found)
    assert html.count("<svg") >= 5
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert "https://" not in html
    assert "None" not in html


def test_the_tables_replace_only_what_is_between_the_marks(found: dict) -> None:
    text = f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n"
    once = readme.with_tables(text, found)
    assert once.startswith("before\n")
    assert once.endswith("\nafter\n")
    assert "old" not in once
    assert readme.with_tables(once, found) == once


@pytest.mark.skipif(not readme.PUBLISHED.is_file(), reason="no results were published yet")
def test_the_published_tables_are_those_of_the_published_results() -> None:
    text = readme.README.read_text()
    assert readme.with_tables(text, json.loads(readme.PUBLISHED.read_text())) == text
