"""What somebody who has logged in sees, in a real browser."""

from __future__ import annotations

import json
import re
from urllib.parse import quote

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import FrameLocator, Page, expect

from tests.browser.conftest import ApiServer, Lake
from tests.browser.runs import CAUSE, FAILED, GOOD, PER_LABEL, SECOND, failed_run, good_run

HOSTILE = "<img src=x onerror=\"window.hit='yes'\"><script>window.hit='yes'</script>"
LIST = "/fruits-runs/"
# Marks a point that only a mark stands for and no other point lies over; gives where it is.
UNCOVERED = """() => {
  for (const point of document.querySelectorAll(".pt:not(.drawn)")) {
    const {x, y} = point.getBoundingClientRect();
    if (document.elementFromPoint(x, y)?.closest(".pt") === point) {
      point.dataset.test = "";
      return [x, y];
    }
  }
}"""


def run_page(run_id: str) -> str:
    return f"{LIST}runs/{quote(run_id, safe='')}"


def inside(page: Page) -> FrameLocator:
    """The pages where Airflow shows them: in a frame of its own."""
    return page.frame_locator("iframe")


def test_the_list_says_of_each_run_what_it_did_newest_first(page: Page, runs: Lake) -> None:
    page.goto(LIST)
    rows = page.locator("tbody tr")
    assert [row.split("\n")[0].strip() for row in rows.all_inner_texts()] == [FAILED, SECOND, GOOD]
    good = rows.nth(2).inner_text().replace("\xa0", " ").split()
    for words in ("✓? Succeeded", "128 of 130 seen", "2 95.3 % 32 components", "2 min 02 s €0.12 €0.0313 eu-west-1"):
        assert re.search(words, " ".join(good)), words
    expect(rows.nth(0)).to_contain_text("Failed")
    expect(rows.nth(0)).to_contain_text(CAUSE)


def test_a_click_leads_from_the_list_to_all_that_is_known_of_the_run(page: Page, runs: Lake) -> None:
    page.goto(LIST)
    page.get_by_role("link", name=GOOD).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Succeeded")
    assert page.locator("h2").all_inner_texts() == [
        "Images",
        "Logs and tables",
        "Flow",
        "Map of the images",
        "Names for the photos",
        "Variance kept",
        "Volumes",
        "Quality gate",
        "Rejects",
        "Drift",
        "Cost",
        "Cluster and residency",
        "Residency evidence",
    ]
    page.locator("summary", has_text="Residency evidence").click()
    for section, words in {
        "Flow": r"Featurize\s+done\s+21 s",
        "Rejects": "photos/Apple/truncated.jpg",
        "Drift": r"4.2 °\s+15.0 °",
        "Residency evidence": r"buckets › lake bucket\s.*region:?\s+eu-west-1",
        "Quality gate": "reject_rate\\s+passed",
    }.items():
        text = page.get_by_role("region", name=section).first.inner_text()
        assert re.search(words, text.replace("\xa0", " ")), (section, text)
    page.get_by_role("link", name="All runs").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Runs")


def test_a_failed_run_shows_its_cause_and_where_it_stopped(page: Page, runs: Lake) -> None:
    page.goto(run_page(FAILED))
    expect(page.locator(".cause")).to_have_text(CAUSE)
    expect(page.locator(".flow .stopped h3")).to_have_text("Featurize")


def test_a_red_run_leads_to_the_section_of_the_runbook_that_says_what_to_do(page: Page, runs: Lake) -> None:
    page.goto(run_page(FAILED))
    page.get_by_role("link", name="What to do").click()
    expect(page).to_have_url(re.compile("/fruits-runs/runbook#red-run$"))
    expect(page.get_by_role("heading", name="red-run", exact=True)).to_be_in_viewport()


def test_a_point_of_the_map_shows_its_picture_under_the_pointer_and_under_the_keys(page: Page, runs: Lake) -> None:
    page.goto(run_page(GOOD))
    page.locator(".points").scroll_into_view_if_needed()
    x, y = page.evaluate(UNCOVERED)
    point = page.locator(".pt[data-test]")
    card = point.locator(".card")
    expect(card).to_be_hidden()
    page.mouse.move(x, y)
    expect(card).to_be_visible()
    assert card.locator("img").evaluate("picture => picture.complete && picture.naturalWidth") == 48
    expect(card.locator("b")).to_have_text((point.get_attribute("aria-label") or "").split(",")[0])
    page.mouse.move(0, 0)
    expect(card).to_be_hidden()

    page.get_by_role("link", name=re.compile("Skip the 128 points")).focus()
    page.keyboard.press("Tab")
    focused = page.locator(".pt:focus")
    expect(focused.locator("b")).to_be_visible()


def test_one_label_of_the_map_can_be_seen_alone(page: Page, runs: Lake) -> None:
    page.goto(run_page(GOOD))
    page.get_by_role("radio", name="Banana").check()
    shown = page.evaluate(
        "[...document.querySelectorAll('.pt')].filter(p => getComputedStyle(p).visibility == 'visible')"
        ".map(p => p.getAttribute('aria-label').split(',')[0])"
    )
    assert shown == ["Banana"] * PER_LABEL


def test_the_list_is_filtered_compared_and_has_trend_lines(page: Page, runs: Lake) -> None:
    page.goto(LIST)
    expect(page.locator(".trends svg")).to_have_count(5)
    page.get_by_label("State").select_option("Failed")
    expect(page.locator("tbody tr:visible")).to_have_count(1)
    expect(page.locator(".trends")).to_be_hidden()  # one run is no line
    page.get_by_label("State").select_option("all")
    page.get_by_label("Mode").select_option("demo")
    expect(page.locator(".runs tbody tr:visible")).to_have_count(1)
    expect(page.locator(".no-match")).to_be_hidden()
    page.get_by_label("State").select_option("Failed")
    expect(page.locator(".no-match")).to_be_visible()
    page.get_by_label("State").select_option("all")
    page.get_by_label("Mode").select_option("all")
    for run_id in (GOOD, FAILED):
        page.get_by_label(f"Compare {run_id}").check()
    rows = page.locator(".compare tr")
    expect(rows.filter(has_text="Run").first.locator("td")).to_have_text([FAILED, GOOD])
    expect(rows.filter(has_text="State").locator("td")).to_have_text(["Failed", "Succeeded"])
    expect(page.locator(".compare caption")).to_be_in_viewport()
    expect(rows.filter(has_text="State").locator(".other")).to_have_count(2)
    expect(page.get_by_label(f"Compare {SECOND}")).to_be_disabled()


def test_a_comparison_comes_into_sight_from_wherever_its_runs_are_ticked(page: Page, runs: Lake) -> None:
    page.set_viewport_size({"width": 390, "height": 500})
    page.goto(LIST)
    for run_id in (FAILED, GOOD):  # each is lower on the page
        page.get_by_label(f"Compare {run_id}").check()
    expect(page.locator(".compare caption")).to_be_in_viewport()


def test_on_a_phone_the_state_is_on_the_screen_and_nothing_is_wider_than_it(page: Page, runs: Lake) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    for address in (LIST, run_page(GOOD), run_page(FAILED), f"{LIST}runbook"):
        page.goto(address)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, address
    page.goto(LIST)
    expect(page.locator(".runs .pill").first).to_be_in_viewport()


def test_a_link_of_a_notice_opens_the_section_of_the_runbook(page: Page, runs: Lake) -> None:
    page.goto(f"{LIST}runbook#featurize-wait")
    expect(page.get_by_role("strong").filter(has_text="featurize.wait")).to_be_in_viewport()


def test_a_run_that_goes_on_says_so(page: Page, empty: Lake) -> None:
    empty.put({SECOND: {"stages/load_images.json": good_run(SECOND)["stages/load_images.json"]}, GOOD: {"x": b""}})
    page.goto(LIST)
    rows = page.locator("tbody tr")
    expect(rows.nth(0)).to_contain_text("Running")  # queued in Airflow
    expect(rows.nth(1)).to_contain_text("No record")
    page.get_by_role("link", name=SECOND).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Running")
    expect(page.locator(".flow .going h3")).to_have_text("Featurize")


def test_a_failed_run_that_was_cleared_goes_on_and_is_not_said_to_have_failed(page: Page, empty: Lake) -> None:
    run = failed_run(SECOND)
    record = json.loads(run["run.json"]) | {"digests": {"stages/load_images.json": "0" * 64}}
    empty.put({SECOND: {**run, "run.json": json.dumps(record).encode()}})
    page.goto(LIST)
    expect(page.locator("tbody tr").nth(0)).to_contain_text("Running")  # queued in Airflow
    page.get_by_role("link", name=SECOND).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Running")
    expect(page.locator(".cause, .alarm")).to_have_count(0)


def test_five_hundred_runs_come_page_by_page(page: Page, airflow: ApiServer, empty: Lake) -> None:
    ids = [f"scheduled__2025-{1 + n // 28:02d}-{1 + n % 28:02d}T02:00:00+00:00" for n in range(300)]
    ids += [f"manual__2024-{1 + n // 28:02d}-{1 + n % 28:02d}T09:00:00+00:00" for n in range(200)]
    empty.put({run_id: failed_run(run_id) for run_id in ids})
    headers = {"Authorization": f"Bearer {airflow.token('viewer')}"}
    for number in (1, 2, 20):
        reply = httpx.get(f"{airflow.url}{LIST}?page={number}", headers=headers, timeout=60)
        assert reply.text.count('<th scope="row">') == 25

    page.goto(LIST)
    expect(page.get_by_text("Page 1 of 20")).to_be_visible()
    page.get_by_role("link", name="Older").click()
    expect(page.get_by_text("Page 2 of 20")).to_be_visible()
    expect(page.locator("tbody tr").first).to_contain_text(sorted(ids, key=lambda i: i.split("__")[1])[-26])


def test_with_no_runs_yet_the_list_says_what_to_do(page: Page, empty: Lake) -> None:
    page.goto(LIST)
    expect(page.locator(".lede")).to_contain_text("No runs yet")
    page.get_by_role("link", name="fruits_pipeline").click()
    expect(page).to_have_url(re.compile("/dags/fruits_pipeline"))


@pytest.mark.parametrize("address", [LIST, run_page(GOOD)])
def test_a_lake_that_does_not_answer_is_called_that(address: str, page: Page, runs: Lake) -> None:
    runs.aws.cut = True
    try:
        reply = page.goto(address)
    finally:
        runs.aws.cut = False
    assert reply
    assert reply.status == 502
    expect(page.get_by_role("heading", level=1)).to_have_text("The lake cannot be read")
    expect(page.locator(".cause")).to_contain_text("127.0.0.1")
    reply = page.goto(address)
    assert reply
    assert reply.ok


@pytest.mark.parametrize("broken", [b'{"run_id": "x"', b"[1]", b"\xff\xfe", b"[" * 200_000, b" " * 2_000_000])
def test_a_broken_record_is_called_that_and_hides_no_other_run(broken: bytes, page: Page, runs: Lake) -> None:
    runs.put({SECOND: {"run.json": broken}})
    page.goto(LIST)
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(3)
    expect(rows.nth(1)).to_contain_text("Record broken")
    expect(rows.nth(1)).to_contain_text("run.json")
    page.get_by_role("link", name=SECOND).click()
    expect(page.get_by_role("alert")).to_contain_text("run.json")
    expect(page.locator(".flow .done h3").first).to_be_visible()  # what the stages wrote is shown all the same


def test_a_hostile_name_is_text_wherever_it_stands(page: Page, runs: Lake) -> None:
    run = good_run(GOOD)
    record = json.loads(run["run.json"]) | {"reason": HOSTILE, "region": HOSTILE, "rejects_by_code": {HOSTILE: 1}}
    stage = json.loads(run["stages/load_images.json"])
    stage["reject_examples"] = [{"source_key": f"photos/{HOSTILE}.jpg", "error_code": HOSTILE, "detail": HOSTILE}]
    residency = {HOSTILE: HOSTILE}
    runs.put(
        {
            GOOD: {
                "run.json": json.dumps(record).encode(),
                "stages/load_images.json": json.dumps(stage).encode(),
                "residency.json": json.dumps(residency).encode(),
            },
            HOSTILE.replace("/", "\\"): {"run.json": json.dumps(record).encode()},
        }
    )
    page.on("dialog", lambda dialog: pytest.fail("a script ran"))
    for address in (LIST, run_page(GOOD)):
        page.goto(address)
        assert page.evaluate("window.hit") is None
        assert page.locator("script").count() == 1
        assert HOSTILE in page.locator("body").inner_text()
    page.goto(LIST)
    stranger = page.locator("tbody th", has_text="onerror").filter(has_text="\\script")
    expect(stranger).to_have_count(1)
    assert stranger.locator("a").count() == 0  # Airflow has no such run


def test_the_pages_load_nothing_from_elsewhere_and_run_no_other_script(
    page: Page, airflow: ApiServer, runs: Lake
) -> None:
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    for address in (LIST, run_page(GOOD)):
        reply = page.goto(address)
        assert reply
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        page.evaluate("""document.body.insertAdjacentHTML('beforeend', '<img src="x" onerror="window.hit=1">')""")
        page.wait_for_timeout(200)
        assert page.evaluate("window.hit") is None
    assert urls
    assert [url for url in urls if not url.startswith((f"{airflow.url}/", "data:image/"))] == []


@pytest.mark.parametrize("page", ["light", "dark"], indirect=True)
def test_axe_finds_no_barrier(page: Page, runs: Lake) -> None:
    for address in (LIST, run_page(GOOD), run_page(FAILED), run_page("nobody")):
        page.goto(address)
        results = Axe().run(page)
        assert results.violations_count == 0, f"{address}\n{results.generate_report()}"


def test_airflow_leads_to_the_list_and_from_a_run_to_its_tasks(page: Page, runs: Lake) -> None:
    page.goto("/")
    page.get_by_role("link", name="Fruits runs").click()
    inside(page).get_by_role("link", name=SECOND).click()
    expect(inside(page).get_by_role("heading", level=1)).to_have_text("Succeeded")
    page.reload()  # its address is in Airflow's
    expect(inside(page).get_by_role("heading", level=1)).to_have_text("Succeeded")
    inside(page).get_by_role("link", name="task featurize.wait").click()
    expect(page).to_have_url(re.compile("/dags/fruits_pipeline/runs/manual.*/tasks/featurize.wait"))


def test_a_dag_run_has_a_tab_with_its_report(page: Page, airflow: ApiServer, runs: Lake) -> None:
    page.goto(f"/dags/fruits_pipeline/runs/{quote(airflow.run_id, safe='')}")
    page.get_by_role("link", name="Fruits report").click()
    expect(inside(page).get_by_role("heading", level=1)).to_have_text("Succeeded")
    inside(page).get_by_role("link", name="All runs").click()
    expect(page).to_have_url(re.compile("/plugin/fruits-runs"))
    expect(inside(page).get_by_role("heading", level=1)).to_have_text("Runs")


def test_inside_airflow_the_page_wears_airflows_colours(page: Page, runs: Lake) -> None:
    page.goto("/")
    colours = {}
    for theme in ("dark", "light"):
        page.evaluate("theme => localStorage.setItem('theme', theme)", theme)
        page.goto("/plugin/fruits-runs")
        body = inside(page).locator("body")
        expect(inside(page).locator("html")).to_have_attribute("data-theme", theme)
        colours[theme] = body.evaluate("body => getComputedStyle(body).backgroundColor")
    assert colours == {"dark": "rgb(18, 22, 20)", "light": "rgb(247, 246, 242)"}
