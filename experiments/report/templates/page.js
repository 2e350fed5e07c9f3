// Everything on the page can be read without this: it sorts, names points, chooses a figure and opens cells.

const cells = JSON.parse(document.getElementById("cells").textContent);
const dialog = document.querySelector("dialog");

function pictured(id, caption) {
  const source = document.getElementById(id);
  if (!source) return [];
  const figure = element("figure"), picture = element("img", "", { src: source.src, alt: caption });
  figure.append(element("figcaption", caption), picture);
  return [figure];
}

function open(id) {
  const cell = cells[id];
  const list = element("dl");
  for (const [name, value] of cell.facts) list.append(element("dt", name), element("dd", value));
  for (const [name, means] of cell.flags) list.append(element("dt", "⚑ " + name, { className: "alarm" }), element("dd", means));
  const rebuilt = pictured(cell.picture, "rebuilt");
  const stack = element("div", "", { className: "stack" });
  stack.append(...(rebuilt.length ? pictured("targets", "the photos") : []), ...rebuilt);
  const files = element("p", `Files beside this page: ${cell.file}.json, .png`, { className: "note" });
  dialog.querySelector("h2").textContent = cell.title;
  dialog.querySelector("div.body").replaceChildren(stack, list, files);
  dialog.showModal();
}

dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

for (const place of document.querySelectorAll("td[data-opens]")) {
  const id = place.dataset.opens;
  button(place, () => open(id), place.querySelector("img") ? "enlarge " + cells[id].title : "");
}

const tip = document.getElementById("tip");
for (const hit of document.querySelectorAll(".hit")) {
  const title = hit.querySelector("title"), said = title.textContent;
  title.remove();  // the browser would show it a second time
  hit.addEventListener("pointermove", (event) => {
    tip.textContent = said;
    tip.hidden = false;
    tip.style.left = Math.max(4, Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8)) + "px";
    tip.style.top = Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8) + "px";
  });
  hit.addEventListener("pointerleave", () => { tip.hidden = true; });
  hit.addEventListener("click", () => open(hit.dataset.opens));
}

const choice = document.querySelector("label.choice");
if (choice) {
  const figures = [...document.querySelectorAll("figure[data-metric]")], select = choice.querySelector("select");
  const show = () => { for (const figure of figures) figure.hidden = figure.dataset.metric !== select.value; };
  choice.hidden = false;
  select.addEventListener("change", show);
  show();
}
