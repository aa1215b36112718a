(() => {
  const { data, find, get, make, set, toggle } = cutsew;
  const gallery = find("cards");
  if (!data.cards.length) return;

  function show(card, place) {
    const entry = get(card.id, place);
    if (entry && !card.rows.has(place)) addRow(card, place);
    const row = card.rows.get(place);
    if (!row) return;
    for (const button of row.querySelectorAll("button[data-present]")) {
      button.setAttribute("aria-pressed", String(entry !== undefined && entry.present === Number(button.dataset.present)));
    }
  }

  // Cards: every class gets two buttons, and every image a field for a class that is missing.

  function addButtons(card, row, place) {
    const cell = make("td", { class: "check" });
    for (const [present, sign, words] of [[1, "\u2713", "is in"], [0, "\u2717", "is not in"]]) {
      const label = `${data.classes[place]} ${words} ${card.id}`;
      const button = make("button", { type: "button", "data-present": present, "aria-label": label, "aria-pressed": false }, sign);
      button.addEventListener("click", () => toggle(card.id, place, present));
      cell.append(button);
    }
    row.append(cell);
    card.rows.set(place, row);
  }

  function addRow(card, place) {
    const row = make("tr", { "data-class": place });
    const head = make("th", { scope: "row", class: "word" });
    head.append(make("button", { type: "button", class: "name" }, data.classes[place]));
    row.append(head, ...data.stages[card.split].map(() => make("td", {}, "-")));
    addButtons(card, row, place);
    card.figure.querySelector("tbody").append(row);
  }

  function addMissing(card) {
    const form = make("form", { class: "missing" });
    const input = make("input", { list: "classes-known", "aria-label": `Class missing from ${card.id}`, placeholder: "missing class" });
    form.append(input, make("button", {}, "Add"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const place = data.classes.indexOf(input.value.trim());
      input.setCustomValidity(place < 0 ? "Choose one of the classes of this run." : "");
      if (!form.reportValidity()) return;
      if (!card.rows.has(place)) addRow(card, place);
      set([[card.id, place, 1]]);
      input.value = "";
    });
    input.addEventListener("input", () => input.setCustomValidity(""));
    card.figure.querySelector("figcaption").append(form);
  }

  const cards = data.cards.map((told, i) => ({ ...told, place: i, figure: find(`image-${i}`), rows: new Map() }));
  for (const card of cards) {
    card.figure.querySelector("thead tr").append(make("th", { scope: "col" }, "check"));
    for (const row of card.figure.querySelectorAll("tbody tr")) addButtons(card, row, Number(row.dataset.class));
    addMissing(card);
  }

  // Frames: while a class is pointed at or in focus, its crop alone is drawn.

  function frame(target) {
    const figure = target.closest("figure.card");
    const row = target.closest("tr[data-class]");
    if (!figure) return;
    for (const group of figure.querySelectorAll("g.frame")) {
      group.classList.toggle("this", row !== null && group.dataset.class === row.dataset.class);
    }
    figure.querySelector(".image").classList.toggle("one", row !== null);
  }
  for (const kind of ["mouseover", "focusin", "click"]) gallery.addEventListener(kind, (event) => frame(event.target));
  gallery.addEventListener("mouseout", (event) => frame(document.activeElement || event.target));

  gallery.addEventListener("keydown", (event) => {
    const row = event.target.closest("tr[data-class]");
    if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
    const answer = { y: 1, n: 0, u: null }[event.key.toLowerCase()];
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (answer !== undefined) {
      const card = cards[Number(row.closest("figure.card").id.slice("image-".length))];
      const place = Number(row.dataset.class);
      set([[card.id, place, answer]]);
    } else if (step) {
      const names = [...gallery.querySelectorAll("figure.card:not([hidden]) button.name")];
      const next = names[names.indexOf(row.querySelector("button.name")) + step];
      if (next) next.focus();
    } else return;
    event.preventDefault();
  });

  // Filters: an image is shown if one of its labels is all that is asked for; such labels are marked.

  const value = (id) => (find(id) ? find(id).value : "");

  function asked() {
    const number = (id, otherwise) => (value(id) === "" ? otherwise : Number(value(id)) / 100);
    const wanted = { class: value("by-class"), stage: value("by-stage"), agreement: value("by-agreement") };
    Object.assign(wanted, { truth: value("by-truth"), check: value("by-check"), reason: value("by-reason") });
    Object.assign(wanted, { low: number("by-low", 0), high: number("by-high", 1) });
    wanted.labels = [wanted.class, wanted.stage, wanted.agreement, wanted.truth, wanted.check].some((x) => x !== "");
    wanted.labels ||= wanted.low > 0 || wanted.high < 1;
    return wanted;
  }

  const AGREEMENT = {
    same: (named) => named.every(Boolean),
    differ: (named) => named.some(Boolean) && !named.every(Boolean),
    gained: (named) => named.at(-1) && !named[0],
    lost: (named) => named[0] && !named.at(-1),
  };
  const TRUTH = {
    right: (named, truth) => named && truth === 1,
    wrong: (named, truth) => named && truth === 0,
    missed: (named, truth) => !named && truth === 1,
  };

  function stageOf(card, wanted) {
    const stages = data.stages[card.split];
    return wanted.stage === "" ? stages.length - 1 : stages.indexOf(wanted.stage);
  }

  function fits(card, label, wanted) {
    const stage = stageOf(card, wanted);
    if (stage < 0) return false;
    const named = label.n[stage] === 1;
    if (wanted.class !== "" && label.c !== Number(wanted.class)) return false;
    if (wanted.stage !== "" && wanted.truth !== "missed" && !named) return false;
    if (wanted.agreement && !AGREEMENT[wanted.agreement](label.n)) return false;
    if (wanted.truth && !TRUTH[wanted.truth](named, label.t)) return false;
    if (wanted.check && (get(card.id, label.c) !== undefined) !== (wanted.check === "yes")) return false;
    return label.p[stage] >= wanted.low && label.p[stage] <= wanted.high;
  }

  const ORDERS = {
    "": (a, b) => a.place - b.place,
    gained: (a, b) => b.gained - a.gained,
    lost: (a, b) => b.lost - a.lost,
    bits: (a, b) => b.bits - a.bits,
    high: (a, b) => b.most - a.most,
    low: (a, b) => a.least - b.least,
    id: (a, b) => a.id.localeCompare(b.id, undefined, { numeric: true }),
  };

  function arrange() {
    const wanted = asked();
    for (const card of cards) {
      const hits = card.labels.filter((label) => fits(card, label, wanted));
      const shown = (!wanted.labels || hits.length > 0) && (wanted.reason === "" || card.why.includes(wanted.reason));
      card.figure.hidden = !shown;
      const sure = hits.map((label) => label.p[stageOf(card, wanted)]);
      card.most = Math.max(-1, ...sure);
      card.least = Math.min(2, ...sure);
      const marked = new Set(wanted.labels ? hits.map((label) => label.c) : []);
      for (const [place, row] of card.rows) row.classList.toggle("hit", marked.has(place));
    }
    gallery.append(...[...cards].sort(ORDERS[value("order")]).map((card) => card.figure));
    find("count").textContent = `${cards.filter((card) => !card.figure.hidden).length} of ${cards.length} images`;
  }

  find("filters").addEventListener("input", arrange);
  find("filters").addEventListener("submit", (event) => event.preventDefault());
  find("all").addEventListener("click", () => {
    find("filters").reset();
    arrange();
  });
  const byId = new Map(cards.map((card) => [card.id, card]));
  cutsew.listen((image, place) => byId.has(image) && show(byId.get(image), place));
  for (const entry of cutsew.all()) if (byId.has(entry.image)) show(byId.get(entry.image), data.classes.indexOf(entry.class));
  arrange();
})();
