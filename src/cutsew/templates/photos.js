(() => {
  const { data, find, get, make, set, toggle } = cutsew;
  const grid = find("photo-grid");
  if (!grid || !data.photos.list.length) return;

  // A thumbnail is decoded when its page is shown.

  const PAGE = data.photos.page;
  const UNCERTAIN = [20, 80]; // probability in percent where the decision threshold is at 50
  const photos = data.photos.list.map(([id, held, width, height, rank, labels], place) => {
    const byClass = new Map(labels.map(([c, p, named, truth, box, decided]) => [c, { c, p, named, truth, box, decided }]));
    return { id, held: held === 1, width, height, rank, place, labels: byClass, split: held === 1 ? "test" : "train" };
  });

  const FIELDS = ["class", "show", "split", "order"];
  const value = (name) => (find(`photo-${name}`) ? find(`photo-${name}`).value : "");
  const near = (label) => Math.abs(label.decided - 50);
  let page = 0;
  let shown = [];

  // Filters stand in the address: #photos?class=3&show=named&page=2

  function readAddress() {
    const [name, query] = location.hash.slice(1).split("?");
    if (name !== "photos" || query === undefined) return;
    const wanted = new URLSearchParams(query);
    for (const field of FIELDS) {
      const control = find(`photo-${field}`);
      if (!control) continue;
      control.value = wanted.get(field) || "";
      if (control.selectedIndex < 0) control.value = "";
    }
    page = Math.max(0, (Number.parseInt(wanted.get("page"), 10) || 1) - 1);
  }

  function writeAddress() {
    const state = new URLSearchParams();
    for (const field of FIELDS) if (value(field)) state.set(field, value(field));
    if (page) state.set("page", String(page + 1));
    const wanted = state.size ? `#photos?${state}` : "#photos";
    if (location.hash !== wanted && (state.size || location.hash.startsWith("#photos?"))) history.replaceState(null, "", wanted);
  }

  // The labels of a photo that the filters are about: of the chosen class, or all.
  function about(photo, place) {
    if (place === null) return [...photo.labels.values()];
    return photo.labels.has(place) ? [photo.labels.get(place)] : [];
  }

  const ticked = (photo, place) =>
    place === null ? data.classes.some((_, c) => get(photo.id, c)) : get(photo.id, place) !== undefined;

  const SHOW = {
    "": () => true,
    named: (photo, labels) => labels.some((label) => label.named),
    not: (photo, labels) => !labels.some((label) => label.named),
    near: (photo, labels) => labels.some((label) => label.decided >= UNCERTAIN[0] && label.decided <= UNCERTAIN[1]),
    next: (photo) => photo.rank > 0,
    wrong: (photo, labels) => labels.some((label) => label.truth >= 0 && label.truth !== label.named),
    ticked: (photo, labels, place) => ticked(photo, place),
    unticked: (photo, labels, place) => !ticked(photo, place),
  };

  const most = (photo) => Math.max(-1, ...photo.about.map((label) => label.p));
  const least = (photo) => Math.min(101, ...photo.about.filter((label) => label.named).map((label) => label.p));
  const doubt = (photo) => Math.min(51, ...photo.about.map(near));
  const ORDERS = {
    "": (a, b) => a.place - b.place,
    high: (a, b) => most(b) - most(a),
    low: (a, b) => least(a) - least(b),
    near: (a, b) => doubt(a) - doubt(b),
    next: (a, b) => (a.rank || Infinity) - (b.rank || Infinity) || a.place - b.place,
    similar: (a, b) => data.photos.similar[a.place] - data.photos.similar[b.place],
    id: (a, b) => a.id.localeCompare(b.id, undefined, { numeric: true }),
  };

  const chosen = () => (value("class") === "" ? null : Number(value("class")));

  const DRAWING = make("template", {});
  DRAWING.innerHTML = '<svg role="img"><rect class="halo"/><rect class="edge"/></svg>';

  // The crop that decided for the class.
  function frame(photo, label) {
    const [x, y, width, height] = label.box;
    const drawing = DRAWING.content.firstChild.cloneNode(true);
    drawing.setAttribute("viewBox", `0 0 ${photo.width} ${photo.height}`);
    drawing.setAttribute("aria-label", `Winning crop of ${data.classes[label.c]}`);
    for (const edge of drawing.children) {
      for (const [name, size] of Object.entries({ x, y, width, height })) edge.setAttribute(name, size);
    }
    return drawing;
  }

  function chips(photo) {
    const list = make("ul", { class: "chips" });
    const corrected = data.classes.map((_, c) => c).filter((c) => get(photo.id, c) && !photo.labels.has(c));
    const labels = [...photo.labels.values()].filter((label) => label.named || get(photo.id, label.c));
    for (const label of [...labels, ...corrected.map((c) => ({ c, p: null, truth: -1, named: 0 }))]) {
      const item = make("li", {});
      const entry = get(photo.id, label.c);
      const percent = label.p === null ? "" : ` ${label.p}`;
      const sign = entry ? (entry.present ? " \u2713" : " \u2717") : "";
      const words = `${data.classes[label.c]}${percent}${sign}`;
      const style = entry ? (entry.present ? "yes" : "no") : label.named && label.truth === 0 ? "wrong" : "";
      const button = make("button", { type: "button", class: `chip ${style}`, title: "Show this class alone" }, words);
      button.addEventListener("click", () => {
        find("photo-class").value = String(label.c);
        find("photo-class").dispatchEvent(new Event("input", { bubbles: true }));
      });
      item.append(button);
      list.append(item);
    }
    if (!list.children.length) list.append(make("li", { class: "quiet" }, "no label"));
    return list;
  }

  function answer(photo, place) {
    const label = photo.labels.get(place);
    const row = make("div", { class: "answer" });
    const state = label ? `${label.p}\u2009%` : "< 5\u2009%";
    row.append(make("span", { class: label && label.named ? "named" : "quiet" }, state));
    if (label && label.truth >= 0 && label.truth !== label.named) {
      row.append(make("span", { class: "wrong" }, label.named ? "wrong" : "missed"));
    }
    const entry = get(photo.id, place);
    for (const [present, sign, words] of [[1, "\u2713", "is in"], [0, "\u2717", "is not in"]]) {
      const pressed = entry !== undefined && entry.present === present;
      const text = { type: "button", "data-present": present, "aria-label": `${data.classes[place]} ${words} ${photo.id}` };
      const button = make("button", { ...text, "aria-pressed": pressed }, sign);
      button.addEventListener("click", () => toggle(photo.id, place, present));
      row.append(button);
    }
    return row;
  }

  const source = (photo) => find(`t${photo.place}`).content.textContent;

  function tile(photo) {
    const place = chosen();
    const figure = make("figure", { class: "photo", "data-place": photo.place });
    const box = make("div", { class: "image" });
    const small = source(photo);
    if (small) box.append(make("img", { src: small, alt: `Image ${photo.id}`, decoding: "async" }));
    else box.append(make("span", {}, "image not available"));
    const label = place === null ? undefined : photo.labels.get(place);
    if (label && label.box.length) {
      box.append(frame(photo, label), make("span", { class: "framed" }, data.classes[place]));
    }
    const badges = make("div", { class: "badges" });
    if (photo.held) badges.append(make("span", { class: "badge held" }, "held out"));
    if (photo.rank) badges.append(make("span", { class: "badge next" }, `next ${photo.rank}`));
    box.append(badges);
    const caption = make("figcaption", {});
    caption.append(make("span", { class: "id" }, photo.id), place === null ? chips(photo) : answer(photo, place));
    figure.append(box, caption);
    return figure;
  }

  function draw() {
    const pages = Math.max(1, Math.ceil(shown.length / PAGE));
    page = Math.min(page, pages - 1);
    grid.replaceChildren(...onPage().map(tile));
    find("photo-count").textContent = `${shown.length} of ${photos.length} photos`;
    find("page-number").textContent = `page ${page + 1} of ${pages}`;
    find("page-back").disabled = page === 0;
    find("page-on").disabled = page >= pages - 1;
    const place = chosen();
    find("bulk").hidden = place === null;
    if (place !== null) find("bulk-class").textContent = data.classes[place];
    writeAddress();
  }

  const onPage = () => shown.slice(page * PAGE, (page + 1) * PAGE);

  function arrange() {
    const place = chosen();
    const keep = SHOW[value("show")] || SHOW[""];
    for (const photo of photos) photo.about = about(photo, place);
    shown = photos.filter(
      (photo) => keep(photo, photo.about, place) && (value("split") === "" || photo.split === value("split")),
    );
    shown.sort(ORDERS[value("order")] || ORDERS[""]);
    draw();
  }

  function turn(step) {
    page += step;
    draw();
    find("photos").scrollIntoView();
  }

  find("photo-filters").addEventListener("input", (event) => {
    if (event.target.id === "photo-class" && chosen() !== null && !value("order")) find("photo-order").value = "high";
    page = 0;
    arrange();
  });
  find("photo-filters").addEventListener("submit", (event) => event.preventDefault());
  find("photo-all").addEventListener("click", () => {
    find("photo-filters").reset();
    page = 0;
    arrange();
  });
  find("page-back").addEventListener("click", () => turn(-1));
  find("page-on").addEventListener("click", () => turn(1));
  for (const [name, present] of [["yes", 1], ["no", 0], ["undo", null]]) {
    find(`bulk-${name}`).addEventListener("click", () => set(onPage().map((photo) => [photo.id, chosen(), present])));
  }
  window.addEventListener("hashchange", () => {
    readAddress();
    arrange();
  });

  // Y is there, N is not, U undo; arrows move between photos.
  grid.addEventListener("keydown", (event) => {
    const figure = event.target.closest("figure.photo");
    if (!figure || event.ctrlKey || event.metaKey || event.altKey) return;
    const said = { y: 1, n: 0, u: null }[event.key.toLowerCase()];
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (said !== undefined && chosen() !== null) {
      set([[photos[Number(figure.dataset.place)].id, chosen(), said]]);
    } else if (step) {
      const all = [...grid.querySelectorAll("figure.photo")];
      const other = all[all.indexOf(figure) + step];
      if (other) other.querySelector("button").focus();
    } else return;
    event.preventDefault();
  });

  // A tick redraws its tile alone and keeps the focus; filters by ticks apply when the filters are used next.
  const byId = new Map(photos.map((photo) => [photo.id, photo]));
  cutsew.listen((image) => {
    const photo = byId.get(image);
    const old = photo && grid.querySelector(`figure[data-place="${photo.place}"]`);
    if (!old) return;
    const focused = [...old.querySelectorAll("button")].indexOf(document.activeElement);
    const fresh = tile(photo);
    old.replaceWith(fresh);
    const button = fresh.querySelectorAll("button")[focused];
    if (button) button.focus();
  });

  readAddress();
  arrange();
})();
