"use strict";
// Corrections: one per image and class, those that the run has already among them, so that a downloaded file holds
// them all. Kept by this browser for this run, these labels and these corrections.
const cutsew = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const find = (id) => document.getElementById(id);
  const KEY = `cutsew:${data.dataset}/${data.run}:${data.digest}`;
  const corrections = new Map();
  const listeners = [];
  const keyOf = (image, name) => JSON.stringify([image, name]);

  const storage = {
    read() {
      try {
        return JSON.parse(localStorage.getItem(KEY)) || {};
      } catch {
        return {};
      }
    },
    write(value) {
      try {
        localStorage.setItem(KEY, JSON.stringify(value));
        return true;
      } catch {
        return false; // some browsers keep nothing for pages opened from a file
      }
    },
  };

  function save() {
    const kept = storage.write({ by: find("by").value, corrections: [...corrections.values()] });
    find("storage").textContent = kept ? "" : "This browser keeps nothing: download before you close the page.";
    window.onbeforeunload = kept || !corrections.size ? null : (event) => event.preventDefault();
    const count = corrections.size;
    find("corrected").textContent = count === 0 ? "No corrections" : count === 1 ? "1 correction" : `${count} corrections`;
    find("download").disabled = find("clear").disabled = count === 0;
  }

  const get = (image, place) => corrections.get(keyOf(image, data.classes[place]));

  // Set corrections: [image, place of the class, 1, 0 or null for none], ...
  function set(entries) {
    const by = find("by").value.trim();
    for (const [image, place, present] of entries) {
      const name = data.classes[place];
      if (present === null) corrections.delete(keyOf(image, name));
      else if (get(image, place)?.present !== present) corrections.set(keyOf(image, name), { image, class: name, present, by, at: new Date().toISOString() });
    }
    for (const [image, place] of entries) for (const changed of listeners) changed(image, place);
    save();
  }

  // The same answer twice takes it back.
  function toggle(image, place, present) {
    const before = get(image, place);
    set([[image, place, before && before.present === present ? null : present]]);
  }

  // RFC 4180: fields with commas, quotes, line breaks or outer spaces are quoted, quotes doubled.
  const field = (value) => (/[",\r\n]|^\s|\s$/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);

  function asCsv() {
    const by = find("by").value.trim();
    const rows = [...corrections.values()].map((e) => [e.image, e.class, String(e.present), e.by || by, e.at]);
    return [["image", "class", "present", "by", "at"], ...rows].map((row) => row.map(field).join(",") + "\r\n").join("");
  }

  function download() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([asCsv()], { type: "text/csv" }));
    link.download = `${data.dataset}-${data.run}-corrections.csv`.replace(/[^\w.+=-]/g, "_");
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  function make(tag, attributes, text = "") {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.textContent = text;
    return element;
  }

  // Panels start folded where the page is narrow.
  if (matchMedia("(max-width: 40rem)").matches) {
    for (const panel of document.querySelectorAll("details.panel")) panel.open = false;
  }

  // A folded section opens where a link leads into it.
  function unfold() {
    const target = location.hash.length > 1 && !location.hash.includes("?") && find(location.hash.slice(1));
    const folded = target && target.closest("details");
    if (folded) folded.open = true;
  }
  window.addEventListener("hashchange", unfold);
  unfold();

  if (find("by")) {
    const kept = storage.read();
    find("by").value = kept.by || "";
    for (const entry of kept.corrections || data.corrections) {
      if (data.classes.includes(entry.class)) corrections.set(keyOf(entry.image, entry.class), entry);
    }
    find("by").addEventListener("input", save);
    find("download").addEventListener("click", download);
    find("clear").addEventListener("click", () => {
      if (!confirm(`Remove all ${corrections.size} corrections?`)) return;
      set([...corrections.values()].map((entry) => [entry.image, data.classes.indexOf(entry.class), null]));
    });
    save();
  }
  return { data, find, get, make, set, toggle, all: () => [...corrections.values()], listen: (act) => listeners.push(act) };
})();
