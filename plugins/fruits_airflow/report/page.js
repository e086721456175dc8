// The page inside Airflow: takes Airflow's theme over, and opens what lies outside its frame.
"use strict";
(() => {
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
