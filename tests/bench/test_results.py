"""results.json has exactly the keys that were asked for, and the README's tables are what it gives."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

pytest.importorskip("numpy")
pytest.importorskip("psutil")

from bench import commits
from bench.measure import STAGES
from bench.report import ratios, readme, results, tables
from bench.report.summary import Summary, marginal
from bench.runs import FULL, QUICK, Run, Sizes
from bench.suite import PCA_PEERS, PEERS

pytestmark = pytest.mark.slow

MACHINE = {"cpu": "a processor", "cores": 2, "memory_gib": 24, "date": "2026-01-01", "commit": "abc"}
ASKED = {
    "machine": {"cpu", "cores"},
    "end_to_end": {"12mp"},
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
    jobs = {stage: {"seconds": took, "stage_s": took - 4, "executor_s": took * workers} for stage in STAGES}
    figures = {
        "wall_s": 4 * took, "start_s": 20.0, "executor_s": 4 * took * workers, "jobs": jobs, "driver_mb": 900,
        "worker_mb": 200, "driver_live_heap_mb": 100,
        "driver_cpu_s": 20.0 + took, "worker_cpu_s": took,
        "bytes": {"load_images": {"input": 5 * size, "pixels": 12 * size}},
    }  # fmt: skip
    return Run(section, name, size, workers, repeat, figures, 0.5)


def made_up(sizes: Sizes) -> list[Run]:
    runs = []
    for repeat in range(sizes.repeats):
        runs += [chain(size, 2, repeat) for size in {sizes.peers, *sizes.images}]
        runs.append(chain(sizes.peers, 1, repeat))
        nights = {"full": sizes.images[-1], "one_percent": sizes.images[-1] // 100, "nothing_new": 0}
        runs += [replace(chain(new, 2, repeat, "night", kind), size=sizes.images[-1]) for kind, new in nights.items()]
        for name in PEERS:
            took = 10 + sizes.images[-1] / 100 + repeat
            runs.append(Run("peers", name, sizes.images[-1], 2, repeat, {"seconds": took}, 0.5))
            runs.append(Run("phones", name, sizes.phones, 2, repeat, {"seconds": sizes.phones / 20.0}, 0.5))
        runs.append(chain(sizes.phones, 2, repeat, "phones"))
        runs += [chain(size, 2, repeat, "memory") for size in sizes.images]
        for size in filter(None, (sizes.peers, sizes.small)):
            for name in [*PEERS, "binaryfile"]:
                figures = {"seconds": 10 + size / 100 + repeat, "memory_mb": 500, "max_difference": 1e-5}
                runs.append(Run("peers", name, size, 2, repeat, figures, 0.5))
        for rows in sizes.pca:
            for name in ("fruits", *PCA_PEERS):
                figures = {"seconds": 3.0 + rows / 50_000 + repeat, "max_relative_error": 1e-9, "subspace_sine": 1e-6}
                runs.append(Run("pca", name, rows, 2, repeat, figures, 0.5))
    return runs


@pytest.fixture(params=[FULL, QUICK], ids=lambda sizes: sizes.name)
def figures(request: pytest.FixtureRequest) -> dict[str, object]:
    return results.summarize(made_up(request.param), request.param, 2, dict(MACHINE), 1234.5)


def test_every_key_that_was_asked_for_is_there(figures: dict) -> None:
    assert {"images", "repeats", "seconds", *ASKED} <= figures.keys()
    for part, keys in ASKED.items():
        assert keys <= figures[part].keys(), part
    assert set(figures["featurize"]["peers_img_s"]) == set(results.PEER_KEYS)
    assert set(figures["scaling"]["workers"]) == {"1", "2"}
    assert {"1000", "5000", "20000"} <= figures["scaling"]["images"].keys()
    assert json.loads(json.dumps(figures)) == figures


def test_a_full_run_leaves_no_figure_empty() -> None:
    figures = results.summarize(made_up(FULL), FULL, 2, dict(MACHINE))
    for part in ("load", "featurize", "night", "ratios"):
        assert all(value is not None for value in figures[part].values()), part
    assert list(figures["end_to_end"]) == ["2000", "20000", "12mp"]
    for row in figures["end_to_end"].values():
        assert row["fruits_img_s"]
        assert all(row["peers_img_s"].values())
    assert set(figures["pca"]["100000"]) == {"fruits_s", "mllib_s", "sklearn_s", "max_relative_error"}
    assert figures["peak_memory_mb"]["20000"] == {"driver": 900, "worker": 200, "driver_live_heap": 100}
    assert all(value is not None for value in figures["ratios"]["large"].values())
    assert all(row.value is not None for row in ratios.expectations(figures))


def test_the_median_counts_and_not_the_mean() -> None:
    runs = [Run("pca", "mllib", 20000, 2, n, {"seconds": s}) for n, s in enumerate((1.0, 2.0, 90.0))]
    assert results.pca(Summary(runs, QUICK, 2))["20000"]["mllib_s"] == 2.0


def test_starting_up_cancels_out_of_what_each_further_photo_costs() -> None:
    assert marginal(200, 2000, {200: 11.0, 2000: 29.0}.get) == 100.0
    assert marginal(200, 2000, {2000: 29.0}.get) is None


def test_a_row_is_summed_on_all_cores_of_the_driver() -> None:
    figures = results.summarize(made_up(FULL), FULL, 2, dict(MACHINE))
    assert figures["details"]["core_ms_per_further_image"]["reduce_pca"] == 0.04
    quick = results.summarize(made_up(QUICK), QUICK, 2, dict(MACHINE))
    assert quick["details"]["core_ms_per_further_image"]["reduce_pca"] is None, "of one size"


def test_it_is_said_which_commit_was_measured_and_where_sections_differ() -> None:
    runs = [replace(run, commit="abc" if run.section == "pca" else "old") for run in made_up(FULL)]
    mixed = results.summarize(runs, FULL, 2, dict(MACHINE))
    assert "pca at commit abc; chain, memory, night, peers, phones at commit old; medians of 3" in tables.setting(mixed)
    alike = results.summarize([replace(run, commit="old") for run in runs], FULL, 2, dict(MACHINE))
    assert " commit old; medians of 3" in tables.setting(alike)


def with_figure(runs: list[Run], size: int, **figures: float) -> list[Run]:
    """The same runs, our chain over `size` photos with other figures."""
    return [
        replace(run, figures=run.figures | figures) if run.section in ("chain", "memory") and run.size == size else run
        for run in runs
    ]


@pytest.mark.parametrize(
    ("what", "label"), [("driver_live_heap", "live heap of a driver"), ("worker", "resident memory of a worker")]
)
def test_memory_that_grows_with_the_images_is_not_what_was_asked_for(what: str, label: str) -> None:
    flat = results.summarize(made_up(FULL), FULL, 2, dict(MACHINE))
    few = flat["peak_memory_mb"]["1000"][what]
    grown = with_figure(made_up(FULL), 20000, **{f"{what}_mb": few * 1.26})
    for figures, met in ((flat, True), (results.summarize(grown, FULL, 2, dict(MACHINE)), False)):
        compared = f"{label}, 20,000 images against 5,000"
        (row,) = (row for row in ratios.expectations(figures) if row.label == compared)
        assert row.met is met
        (line,) = (
            line for line in readme.markdown(tables.against_expectation(figures)).splitlines() if compared in line
        )
        assert "≤ 1.25 times" in line
        assert ("not met" in line) is not met


def test_resident_memory_of_a_driver_is_told_and_not_judged() -> None:
    grown = with_figure(made_up(FULL), 20000, driver_mb=1800.0)
    figures = results.summarize(grown, FULL, 2, dict(MACHINE))
    assert figures["ratios"]["memory_growth"]["1000"]["driver"] == 2.0
    assert "| 20,000 images |" in readme.markdown(tables.scaling_table(figures))


def test_running_the_model_and_the_whole_job_are_two_ratios() -> None:
    figures = results.summarize(made_up(FULL), FULL, 2, dict(MACHINE))
    assert figures["ratios"]["featurize_over_limit"] == pytest.approx((10 + 20 + 1) / (5 + 5 + 1 - 4), abs=1e-3)
    assert figures["ratios"]["whole_job_over_limit"] == pytest.approx((10 + 20 + 1) / (5 + 5 + 1), abs=1e-3)
    large = figures["ratios"]["large"]
    assert large["whole_job_over_limit"] < large["featurize_over_limit"]
    text = readme.markdown(tables.against_expectation(figures))
    for label in ("running the model, against the same engine", "whole job, against the same engine"):
        assert sum(label in line for line in text.splitlines()) == 2, "on 2,000 and on 20,000 photos"


def test_work_that_is_moved_to_the_driver_shows() -> None:
    def share(driver_cpu_s: float) -> float:
        runs = [
            replace(run, figures=run.figures | {"driver_cpu_s": driver_cpu_s})
            if run.contestant == "one_percent"
            else run
            for run in made_up(FULL)
        ]
        figures = results.summarize(runs, FULL, 2, dict(MACHINE))
        return figures["details"]["night"]["one_percent_beyond_nothing_new_share"]

    assert share(26.5) == pytest.approx(0.01, abs=0.003)
    assert share(76.5) > 0.4


def test_how_long_the_suite_took_is_told_unless_it_ran_in_several_goes(figures: dict) -> None:
    assert "The suite took 21 minutes" in readme.how_long(figures)
    assert "The suite took several goes" in readme.how_long(figures | {"seconds": None})


def test_publishing_a_quick_run_keeps_the_results_of_the_full_one(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(readme, "README", tmp_path / "README.md")
    monkeypatch.setattr(readme, "PUBLISHED", tmp_path / "results.json")
    monkeypatch.setattr(readme, "QUICK", tmp_path / "quick.json")
    readme.README.write_text(f"{readme.BEGIN}{readme.END}")
    readme.publish(results.summarize(made_up(FULL), FULL, 2, dict(MACHINE), 2700.0))
    full = readme.PUBLISHED.read_bytes()
    readme.publish(results.summarize(made_up(QUICK), QUICK, 2, dict(MACHINE), 400.0))
    assert readme.PUBLISHED.read_bytes() == full
    assert "The suite took 45 minutes; quick mode 7 minutes (2026-01-01, commit abc)." in readme.README.read_text()


def test_no_table_shows_none(figures: dict) -> None:
    text = readme.tables_of(figures)
    assert text.count("\n| --- |") == len(tables.all_tables(figures))
    assert "None" not in text


def test_the_tables_replace_only_what_is_between_the_marks(figures: dict) -> None:
    text = f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n"
    once = readme.with_tables(text, figures)
    assert once.startswith("before\n")
    assert once.endswith("\nafter\n")
    assert "old" not in once
    assert readme.with_tables(once, figures) == once


@pytest.mark.skipif(not readme.PUBLISHED.is_file(), reason="no results were published yet")
def test_the_published_tables_are_those_of_the_published_results() -> None:
    text = readme.README.read_text()
    assert readme.with_tables(text, json.loads(readme.PUBLISHED.read_text())) == text


PUBLISHED = json.loads(readme.PUBLISHED.read_text()) if readme.PUBLISHED.is_file() else None
REMEDY = "commit, then measure what is committed: make bench PUBLISH=1"


@pytest.mark.skipif(PUBLISHED is None, reason="no results were published yet")
@pytest.mark.skipif(
    commits.git("rev-parse", "--is-shallow-repository") != (0, "false"),
    reason="no git history here, or a shallow clone of it",
)
def test_the_published_commits_are_in_this_history() -> None:
    named = {PUBLISHED["machine"]["commit"], *PUBLISHED["details"]["commits"]}
    lost = {
        commit
        for commit in named
        if commit.endswith("+") or commits.git("merge-base", "--is-ancestor", commit, "HEAD")[0]
    }
    assert not lost, f"{', '.join(sorted(lost))}: nobody can look up what was measured; {REMEDY}"


@pytest.mark.skipif(PUBLISHED is None, reason="no results were published yet")
def test_the_published_memory_does_not_grow_with_the_images() -> None:
    grown = PUBLISHED["ratios"].get("memory_growth")
    assert grown is not None, f"these results are older than that measurement; {REMEDY}"
    assert grown["5000"]["images"] == 20000
    assert grown["5000"]["driver_live_heap"] <= ratios.FLAT
    assert grown["5000"]["worker"] <= ratios.FLAT
