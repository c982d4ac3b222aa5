// Adds search, filters, the order by document, and copies of what is printed elsewhere. The page is whole without it.
"use strict";
const one = id => document.getElementById(id);
const entries = [...document.querySelectorAll(".entry")];
const groups = [...document.querySelectorAll(".group")];
const topical = entries.map(entry => entry.id);
const boxes = () => [...document.querySelectorAll("#filter input")];
const texts = new Map();

function text(entry) {
  if (!texts.has(entry)) texts.set(entry, entry.textContent.toLowerCase());
  return texts.get(entry);
}

function show() {
  const words = one("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const off = new Set(boxes().filter(box => !box.checked).map(box => box.value));
  for (const entry of entries) {
    entry.hidden = off.has(entry.dataset.verdict) || !words.every(word => text(entry).includes(word));
  }
  for (const group of groups) group.hidden = !group.querySelector(".entry:not([hidden])");
  one("found").textContent = `${entries.filter(entry => !entry.hidden).length} of ${entries.length} shown`;
}

function arrange(order) {
  const homes = new Map(groups.map(group => [group.dataset[order], group]));
  const ids = order === "topic" ? topical : groups.flatMap(group => (group.dataset.order || "").split(" ").filter(Boolean));
  for (const entry of ids.map(one)) homes.get(entry.dataset[order]).append(entry);
  for (const name of ["topic", "document"]) {
    if (one(`by-${name}`)) one(`by-${name}`).hidden = name !== order;
  }
  for (const radio of document.querySelectorAll(`[name=order][value=${order}], [name=squares][value=${order}]`)) radio.checked = true;
  show();
}

// A link leads to something that is closed, or that the filters hide: open it.
function reveal() {
  const target = one(location.hash.slice(1));
  if (!target) return;
  const entry = target.closest(".entry");
  if (entry && entry.hidden) {
    one("search").value = "";
    for (const box of boxes()) box.checked = true;
    show();
  }
  for (let it = target; it; it = it.parentElement) if (it.matches("details")) it.open = true;
  target.scrollIntoView();
}

// What is printed elsewhere is copied when it is opened here.
document.addEventListener("toggle", event => {
  const source = event.target.open && event.target.dataset.copy && one(event.target.dataset.copy);
  if (!source) return;
  const copy = source.cloneNode(true);
  for (const it of copy.querySelectorAll("[id]")) it.removeAttribute("id");
  copy.querySelector("summary").remove();
  event.target.replaceChildren(event.target.querySelector("summary"), ...copy.childNodes);
  delete event.target.dataset.copy;
}, true);

if (one("tools")) {
  one("tools").hidden = false;
  for (const form of document.querySelectorAll(".tools form, .switch")) {
    form.hidden = false;
    form.addEventListener("submit", event => event.preventDefault());
    form.addEventListener("input", event => event.target.type === "radio" ? arrange(event.target.value) : show());
  }
  one("toggle").addEventListener("click", () => {
    const open = one("toggle").textContent === "Open all";
    for (const entry of entries) entry.open = open && !entry.hidden;
    one("toggle").textContent = open ? "Close all" : "Open all";
  });
  arrange("topic");
}
addEventListener("hashchange", reveal);
reveal();
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(it => { it.open = true; }));
