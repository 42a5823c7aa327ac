"use strict";

// A link to the images of a cell opens the details around them, in browsers that do not do so themselves.
function reveal(id) {
  for (let part = document.getElementById(id); part; part = part.parentElement) {
    if (part.tagName === "DETAILS") part.open = true;
  }
}

for (const link of document.querySelectorAll('a[href^="#cell-"]')) {
  link.addEventListener("click", () => {
    const id = link.hash.slice(1);
    reveal(id);
    document.getElementById(id).focus();
  });
}
reveal(location.hash.slice(1));

// A button in each head of a table sorts its rows, first upwards, then downwards; missing values are last.
function value(row, column) {
  const cell = row.cells[column];
  return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent.trim();
}

function compare(a, b) {
  if (typeof a === typeof b) return typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true });
  return 0;
}

function sort(table, column, upwards) {
  const body = table.tBodies[0];
  const rows = Array.from(body.rows, (row) => [value(row, column), row]);
  const numeric = rows.some(([one]) => typeof one === "number");
  const missing = ([one]) => numeric && typeof one !== "number";
  rows.sort((a, b) => missing(a) - missing(b) || (upwards ? compare(a[0], b[0]) : compare(b[0], a[0])));
  body.append(...rows.map(([, row]) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const upwards = head.getAttribute("aria-sort") !== "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", upwards ? "ascending" : "descending");
      sort(table, column, upwards);
    });
  });
}

// The slider says what the network answers above its threshold.
for (const slider of document.querySelectorAll(".slider")) {
  const sentences = JSON.parse(document.getElementById("threshold-sentences").textContent);
  const input = slider.querySelector("input");
  const show = () => {
    slider.querySelector("output").textContent = sentences[input.value];
    input.setAttribute("aria-valuetext", sentences[input.value]);
  };
  slider.hidden = false;
  input.addEventListener("input", show);
  show();
}
