// Sorting, searching and copying of tables; without it the pages show everything all the same.
"use strict";

const value = (text) => {
  const number = parseFloat(text.replace(/[,[]/g, ""));
  return /^\[?[-+]?[\d.,]/.test(text.trim()) && !Number.isNaN(number) ? number : null;
};

const compare = (a, b) => {
  const [x, y] = [value(a), value(b)];
  if (x !== null && y !== null) return x - y;
  if (x !== null || y !== null) return x !== null ? -1 : 1;
  return a.localeCompare(b);
};

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const body = table.tBodies[0];
      const rows = [...body.rows].sort((a, b) => compare(a.cells[column].textContent, b.cells[column].textContent));
      body.append(...(down ? rows.reverse() : rows));
    });
  });
}

for (const input of document.querySelectorAll("input[data-filters]")) {
  const list = document.getElementById(input.dataset.filters);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/);
    for (const entry of list.children) {
      const text = entry.textContent.toLowerCase();
      entry.hidden = !words.every((word) => text.includes(word));
    }
  });
}

for (const button of document.querySelectorAll("button[data-copies]")) {
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copies);
    const said = button.parentElement.querySelector("output");
    try {
      await navigator.clipboard.writeText(source.value);
    } catch {
      source.hidden = false; // a page opened from a file has no clipboard: select and copy
      source.select();
      document.execCommand("copy");
      source.hidden = true;
    }
    said.textContent = `${button.textContent.replace("Copy as ", "")} copied`;
  });
}
