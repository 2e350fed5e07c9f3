"use strict";
function element(name, text, attributes = {}) {
  const made = Object.assign(document.createElement(name), attributes);
  if (text) made.textContent = text;
  return made;
}

function button(parent, act, label) {
  const made = element("button", "", { type: "button" });
  if (label) made.setAttribute("aria-label", label);
  made.append(...parent.childNodes);
  parent.append(made);
  made.addEventListener("click", act);
}

// sorting: by the number that a cell says it stands for, or else by the first in its text, or by the text
function worth(row, column) {
  const cell = row.cells[column], text = cell.textContent.trim();
  const number = parseFloat(cell.dataset.sort ?? (/^[-\d]/.test(text) ? text.replaceAll(",", "") : ""));
  return Number.isNaN(number) ? text : number;
}

function compare(a, b) {
  if (typeof a === typeof b) return typeof a === "number" ? a - b : a.localeCompare(b);
  return typeof a === "number" ? -1 : 1;
}

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => button(heading, () => {
    const up = heading.getAttribute("aria-sort") !== "ascending";
    const rows = [...body.rows].map((row) => [worth(row, column), row]).sort(([a], [b]) => up ? compare(a, b) : compare(b, a));
    for (const other of headings) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", up ? "ascending" : "descending");
    body.append(...rows.map(([, row]) => row));
  }));
}
