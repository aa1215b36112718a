// Long tables are shown a page of rows at a time; a search finds rows by their first column.
for (const region of document.querySelectorAll("[data-rows]")) {
  const { make } = cutsew;
  const size = Number(region.dataset.rows);
  const rows = [...region.querySelectorAll("tbody tr")];
  const names = rows.map((row) => row.cells[0].textContent.toLowerCase());
  const head = region.querySelector("thead th").textContent;
  const search = make("input", { type: "search", "aria-label": `Find a ${head}`, placeholder: `find a ${head}` });
  const back = make("button", { type: "button" }, "Previous");
  const on = make("button", { type: "button" }, "Next");
  const place = make("span", { role: "status" });
  const bar = make("div", { class: "pages", role: "group", "aria-label": "Rows" });
  bar.append(search, back, place, on);
  region.before(bar);
  let page = 0;

  function show() {
    const text = search.value.trim().toLowerCase();
    const found = rows.filter((_, i) => names[i].includes(text));
    const pages = Math.max(1, Math.ceil(found.length / size));
    page = Math.max(0, Math.min(page, pages - 1));
    const shown = new Set(found.slice(page * size, (page + 1) * size));
    for (const row of rows) row.hidden = !shown.has(row);
    place.textContent = `${found.length} rows, page ${page + 1} of ${pages}`;
    back.disabled = page === 0;
    on.disabled = page === pages - 1;
  }

  function turn(step) {
    page += step;
    show();
  }

  search.addEventListener("input", () => turn(-page));
  back.addEventListener("click", () => turn(-1));
  on.addEventListener("click", () => turn(1));
  show();
}
