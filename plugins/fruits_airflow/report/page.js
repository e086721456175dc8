// The pages of the runs: the list's filters, trend lines and comparison; and what Airflow's frame needs.
"use strict";
(() => {
  const rows = () => [...document.querySelectorAll(".runs tbody tr")];
  const text = (element) => element.innerText.replace(/\s+/g, " ").trim();
  const make = (name, content, parent) => {
    const element = document.createElement(name);
    element.textContent = content;
    parent.append(element);
    return element;
  };

  const TRENDS = [
    ["images", "Images loaded", 0], ["rejects", "Rejects", 0], ["seconds", "Seconds", 0], ["euros", "Euros (estimate)", 4],
    ["variance", "Variance kept", 3],
  ];

  // Lines over the succeeded runs that the filters show, the oldest on the left.
  const drawTrends = () => {
    const shown = rows().filter((row) => !row.hidden && row.dataset.state === "Succeeded").reverse();
    const box = document.querySelector(".trends");
    box.replaceChildren();
    box.hidden = shown.length < 2;
    for (const [name, title, digits] of box.hidden ? [] : TRENDS) {
      const values = shown.map((row) => Number(row.dataset[name]));
      const low = Math.min(...values), high = Math.max(...values);
      const points = values.map((value, i) =>
        `${(100 * i) / (values.length - 1)},${high === low ? 15 : 29 - (28 * (value - low)) / (high - low)}`);
      const figure = make("div", "", box);
      make("span", title, figure).className = "small";
      const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      svg.setAttribute("viewBox", "0 0 100 30");
      svg.setAttribute("preserveAspectRatio", "none");
      svg.setAttribute("role", "img");
      const words = `${low.toFixed(digits)} to ${high.toFixed(digits)}, last ${values.at(-1).toFixed(digits)}`;
      svg.setAttribute("aria-label", `${title} of ${values.length} runs: ${words}`);
      const line = document.createElementNS(svg.namespaceURI, "polyline");
      line.setAttribute("points", points.join(" "));
      svg.append(line);
      figure.append(svg);
      make("span", words, figure).className = "small";
    }
  };

  const compare = () => {
    const chosen = rows().filter((row) => row.querySelector("input").checked);
    const box = document.querySelector(".compare");
    box.replaceChildren();
    box.hidden = chosen.length !== 2;
    for (const row of rows()) row.querySelector("input").disabled = chosen.length >= 2 && !chosen.includes(row);
    if (box.hidden) return;
    const table = make("table", "", box);
    make("caption", "Two runs side by side; what differs is marked", table);
    const body = make("tbody", "", table);
    const titles = [...document.querySelectorAll(".runs thead th")].map(text);
    titles.forEach((title, i) => {
      const line = make("tr", "", body);
      make("th", title, line).scope = "row";
      const cells = chosen.map((row) => text((i === 0 && row.querySelector("th a")) || row.cells[i]));
      for (const cell of cells) make("td", cell, line).className = i > 0 && cells[0] !== cells[1] ? "other" : "";
    });
    box.scrollIntoView({ block: "start" }); // it is above the list, out of sight where the runs are further down
  };

  const startList = () => {
    const filters = document.querySelector(".filters");
    if (!filters) return;
    filters.hidden = false;
    for (const box of document.querySelectorAll(".runs input")) {
      box.hidden = false;
      box.addEventListener("change", compare);
    }
    const value = (name) => filters.querySelector(`[name=${name}]`).value;
    filters.addEventListener("input", () => {
      for (const row of rows()) {
        row.hidden = !(
          ["", row.dataset.state].includes(value("state")) &&
          ["", row.dataset.mode].includes(value("mode")) &&
          text(row.cells[0]).includes(value("run"))
        );
      }
      document.querySelector(".no-match").hidden = rows().some((row) => !row.hidden);
      drawTrends();
    });
    drawTrends();
  };
  document.addEventListener("DOMContentLoaded", startList);

  if (window.parent === window) return;
  const airflow = window.parent.document; // same origin: no other may frame this page

  const follow = () => {
    document.documentElement.dataset.theme = airflow.documentElement.classList.contains("dark") ? "dark" : "light";
  };
  follow();
  new MutationObserver(follow).observe(airflow.documentElement, { attributeFilter: ["class"] });

  // Airflow's frame lets no link out of it, so the window around it follows the link in its place.
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[target]");
    if (!link || event.defaultPrevented) return;
    event.preventDefault();
    const twin = airflow.createElement("a");
    twin.href = link.href;
    twin.rel = "noopener";
    twin.target = link.target === "_blank" || event.ctrlKey || event.metaKey ? "_blank" : "_self";
    airflow.body.append(twin);
    twin.click();
    twin.remove();
  });
})();
