"""Write docs/scale.md from template.md and the figures of scale_model.py, and figures.json for the slides.

Run by `.venv-airflow/bin/python docs/scale/write_scale.py`. With --check it only says whether the document is what the
inputs give.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from string import Template
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import scale_model  # noqa: E402 - beside this file
from scale_model import LISTED_AT_ONCE, STAGES, Inputs, Model  # noqa: E402

DOCUMENT = HERE.parents[1] / "docs" / "scale.md"
FIGURES = HERE / "figures.json"
EVIDENCE = HERE.parent / "evidence" / "first_night.json"
NIGHT_SHARE = 0.01
"""New images of a night, of all."""


def document() -> str:
    """Return the whole document."""
    return Template((HERE / "template.md").read_text()).substitute(figures(Model(Inputs.read())))


def slide_figures(model: Model) -> str:
    """Return what the slides show of the document, as JSON: a first load by volume and fleet, a night, the limits."""
    facts = model.facts
    steps, fleets = facts["steps"], facts["fleets"]

    def duration(images: float, nodes: int, known: float = 0.0) -> dict[str, float]:
        return {"hours": round(model.hours(images, nodes, known), 4), "eur": round(model.eur(images, nodes, known), 2)}

    content = {
        "images_per_second": model.inputs.profile.images_per_second,
        "fixed_minutes": model.inputs.profile.fixed_minutes,
        "pca_sums_mb": round(scale_model.pca_sums_mb(), 1),
        "steps": steps,
        "fleets": [{"nodes": nodes, "vcpus": model.vcpus(nodes)} for nodes in fleets],
        "first_load": [[duration(step, nodes) for nodes in fleets] for step in steps],
        "night": [{"new": step * NIGHT_SHARE, **duration(step * NIGHT_SHARE, fleets[0], step)} for step in steps],
        "limits": [{"what": limit.resource, "images": round(limit.breaks_at)} for limit in model.limits()],
    }
    return json.dumps(content, indent=1) + "\n"


def figures(model: Model) -> dict[str, str]:
    """Return the template's values as text."""
    facts, inputs = model.facts, model.inputs
    machine = inputs.results["machine"]
    phones = model.of_phones()
    phone = inputs.photos["phone"]
    steps = [int(step) for step in facts["steps"]]
    return {
        "cpu": str(machine["cpu"]),
        "date": str(machine["date"]),
        "commit": str(machine["commit"]),
        "mode": str(inputs.results["sizes"]),
        "instance": " or ".join(model.core_types),
        "vcpu_speed": f"{model.vcpu_speed:.2f}",
        "prices_as_of": inputs.prices.as_of,
        "facts_as_of": facts["as_of"],
        "region": facts["region"],
        "fixed_minutes": f"{inputs.profile.fixed_minutes:.0f}",
        "profile_images_per_s": f"{inputs.profile.images_per_second:.0f}",
        "per_image": per_image(model),
        "vcpu_ms": f"{model.vcpu_s_per_image * 1000:.1f}",
        "trial_keys": f"{inputs.trial['keys']:,}",
        "trial_list_s": f"{inputs.trial['list_and_write_s']:.0f}",
        "trial_compare_s": f"{inputs.trial['compare_s']:.0f}",
        "trial_mb": f"{inputs.trial['peak_memory_mb']}",
        "trial_listing_mb": f"{inputs.trial['listing_bytes'] / 1e6:.0f}",
        "limits": limits(model),
        "first_load": fleet_table(model, steps, share=1.0),
        "night": fleet_table(model, steps, share=NIGHT_SHARE),
        "s3": s3_table(model, steps),
        "order": order(model, steps),
        "nodes_at_request_limit": f"{model.nodes_at_request_limit():,.0f}",
        "get_rate": f"{facts['s3']['get_per_s_per_prefix']:,}",
        "pca_hours": "; ".join(
            f"{short(step)} on {facts['fleets'][1]} nodes {hours(model.pca_hours(step, facts['fleets'][1]))}"
            for step in steps
        ),
        "pca_sums_mb": f"{scale_model.pca_sums_mb():.0f}",
        "sum_bits": str(scale_model.sum_bits()),
        "exact_up_to": f"2^{math.log2(scale_model.exact_up_to()):.0f}",
        "most_sums": str(scale_model.MOST_SUMS),
        "stages": str(len(STAGES)),
        "listed_at_once": str(LISTED_AT_ONCE),
        "first_tb": str(facts["s3"]["first_tb"]),
        "small_px": str(inputs.photos["small"]["width_px"]),
        "night_percent": f"{NIGHT_SHARE * 100:.0f}",
        "phone_megapixels": f"{phone['width_px'] * phone['height_px'] / 1e6:.0f}",
        "phone_mb": f"{phone['bytes'] / 1e6:.1f}",
        "phone_kept_px": " x ".join(map(str, phone["stored_px"])),
        "phone_kept_kb": f"{phone['stored_bytes'] / 1e3:.0f}",
        "phone_ms": f"{phones.vcpu_s_per_image * 1000:.0f}",
        "first_load_phones": fleet_table(phones, steps, share=1.0),
        "s3_phones": s3_table(phones, steps),
        "input_kb": f"{(model.bytes['input'] or 0) / 1000:.1f}",
        "emr_steps": str(facts["emr"]["steps_per_cluster"]),
        "first_night": first_night(),
        **pixels(inputs.pixels),
        **by_step(model, steps),
    }


def first_night(path: Path = EVIDENCE) -> str:
    """Return what the first night on AWS has measured, or that there has been none."""
    if not path.exists():
        return "No night on AWS has been measured yet: `make first-night` leaves `docs/evidence/first_night.json`."
    night = json.loads(path.read_text())
    delay, cost, release = night["log_delay_s"], night["cost"], night["cluster"]["release"]
    return (
        f"Measured on AWS by the first night (`docs/evidence/first_night.json`, {night['region']}, "
        f"{night['images']['loaded']} images, {release}): {night['start_up_minutes']:.1f} minutes to "
        f"start, {night['fixed_minutes']:.1f} fixed minutes, {cost['estimate_eur']:.2f} EUR where the forecast said "
        f"{cost['forecast_eur']:.2f}, logs {'not seen' if delay is None else f'{delay:.0f} s'} after their step."
    )


def pixels(trial: dict[str, Any]) -> dict[str, str]:
    """Tabulate the features of what is stored of a photo."""
    names = {"large": "photos with grain, as stored", "large_twice": "the same, twice the pixels on each side"}
    names |= {"noise": "seeded noise, as stored", "noise_twice": "the same, twice the pixels on each side"}
    rows = [
        [
            name,
            str(trial[key]["photos"]),
            f"{trial[key]['least_cosine']:.4f}",
            f"{trial[key]['largest_difference']:.2f}",
            f"{trial[key]['mean_of_the_largest_differences']:.2f}",
            f"{trial[key]['mean_stored_bytes'] / 1000:.0f} kB",
        ]
        for key, name in names.items()
    ]
    head = ["12 megapixels", "tried", "least cosine", "largest difference", "mean of the largest", "stored"]
    return {
        "pixels_weights": trial["weights"],
        "pixels_small": str(trial["small"]["photos"]),
        "pixels_equal": str(trial["small"]["equal_to_the_bit"]),
        "pixels_table": table(head, rows),
    }


def by_step(model: Model, steps: list[int]) -> dict[str, str]:
    """Return the values of the last section, for each step."""
    texts = {}
    for place, step in enumerate(steps, 1):
        texts[f"step_{place}"] = short(step)
        texts[f"step_{place}_load"] = hours(model.hours(step, model.facts["fleets"][0]))
        texts[f"step_{place}_list"] = hours(model.list_hours(step))
        texts[f"step_{place}_list_flat"] = hours(model.list_hours(step, at_once=1))
    return texts


def table(head: list[str], rows: list[list[str]]) -> str:
    """Format a Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def per_image(model: Model) -> str:
    """Tabulate the measured cost of one image."""
    rows = [[f"`{stage}`", f"{model.core_ms[stage]:.2f} ms of a core"] for stage in STAGES]
    names = {"input": "read", "pixels": "`images`", "features": "`features`", "pca": "`pca`"}
    rows += [[f"bytes, {names[what]}", f"{size:,.0f}"] for what, size in model.bytes.items() if size]
    return table(["each further image", "measured"], rows)


def limits(model: Model) -> str:
    """Tabulate resources in the order in which they run out."""
    rows = [[limit.resource, short(limit.breaks_at), limit.why, limit.answer] for limit in model.limits()]
    return table(["what runs out", "at about", "because", "what is done about it"], rows)


def order(model: Model, steps: list[int]) -> str:
    """List the exhausted resources at each step, the first ones first."""
    lines = []
    for step in steps:
        gone = [limit.resource for limit in model.limits() if limit.breaks_at < step]
        resources = "; ".join(gone) if gone else "nothing"
        lines.append(f"- **{short(step)} images**: {resources}.")
    return "\n".join(lines)


def fleet_table(model: Model, steps: list[int], share: float) -> str:
    """Tabulate hours and euros by fleet."""
    rows = []
    for step in steps:
        row = [f"{short(step * share)} new of {short(step)}" if share < 1 else short(step)]
        known = step if share < 1 else 0.0
        for nodes in model.facts["fleets"]:
            taken = model.hours(step * share, nodes, known)
            row.append(f"{hours(taken)}, {money(model.eur(step * share, nodes, known))}")
        rows.append(row)
    head = ["images", *(f"{n} core nodes ({model.vcpus(n):,} vCPU)" for n in model.facts["fleets"])]
    return table(head, rows)


def s3_table(model: Model, steps: list[int]) -> str:
    """Tabulate what does not depend on the fleet."""
    rows = []
    for step in steps:
        tables = sum(model.storage_gb(step, what) for what in ("pixels", "features", "pca"))
        rows.append(
            [
                short(step),
                hours(model.list_hours(step)),
                hours(model.list_hours(step, at_once=1)),
                money(model.list_eur(step)),
                money(model.inventory_eur(step)),
                money(model.get_eur(step)),
                size(tables),
                f"{model.data_files(step):,}",
                money(model.lake_eur_per_month(step)),
            ]
        )
    head = [
        "images",
        f"LIST, {LISTED_AT_ONCE} folders at once",
        "one folder",
        "LIST",
        "or Inventory",
        "one GET each",
        "tables",
        "data files",
    ]
    return table([*head, "tables, a month"], rows)


def short(count: float) -> str:
    """Format a large number in words."""
    for unit, name in ((1e9, "billion"), (1e6, "million")):
        if count >= unit:
            return f"{rounded(count / unit)} {name}"
    return f"{count:,.0f}"


def rounded(value: float) -> str:
    """Format a number with two significant digits."""
    return f"{value:.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def hours(value: float) -> str:
    """Format a duration."""
    if value < 1.5:
        return f"{max(1, round(value * 60))} min"
    return f"{value:.1f} h" if value < 48 else f"{value / 24:,.0f} days"


def money(eur: float) -> str:
    """Format an amount."""
    return f"{eur:,.2f} EUR" if eur < 100 else f"{eur:,.0f} EUR"


def size(gb: float) -> str:
    """Format a size."""
    return f"{gb:,.1f} GB" if gb < 1000 else f"{gb / 1000:,.1f} TB"


def main() -> int:
    """Write or check the document; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    texts = {DOCUMENT: document(), FIGURES: slide_figures(Model(Inputs.read()))}
    if parser.parse_args().check:
        stale = [path for path, text in texts.items() if not path.is_file() or path.read_text() != text]
        names = ", ".join(str(path.relative_to(HERE.parents[1])) for path in stale)
        sys.stdout.write(
            f"{names}: not what the inputs give; run docs/scale/write_scale.py\n" if stale else "as computed\n"
        )
        return 1 if stale else 0
    for path, text in texts.items():
        path.write_text(text)
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
