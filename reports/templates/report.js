"use strict";
// Filters and sorts the rows of the plots, and copies those that are shown. Without scripting the page has all rows.
(function () {
  const form = document.querySelector("form.filters");
  if (!form) {
    return;
  }
  const rows = Array.from(document.querySelectorAll("tr[data-target]"));
  const bodies = Array.from(new Set(rows.map((row) => row.parentElement)));
  const order = new Map(rows.map((row, number) => [row, number]));

  function ratio(row) {
    const number = parseFloat(row.querySelector(".ratio").textContent);
    return isNaN(number) ? null : number;
  }

  // Rows without a ratio come last in either direction.
  function compare(one, other) {
    const direction = form.elements.order.value;
    const [first, second] = [ratio(one), ratio(other)];
    if (!direction || first === second) {
      return order.get(one) - order.get(other);
    }
    if (first === null || second === null) {
      return first === null ? 1 : -1;
    }
    return direction === "down" ? second - first : first - second;
  }

  function update() {
    const [target, kind] = [form.elements.target.value, form.elements.kind.value];
    for (const row of rows) {
      row.hidden = Boolean((target && row.dataset.target !== target) || (kind && row.dataset.kind !== kind));
    }
    for (const body of bodies) {
      const own = rows.filter((row) => row.parentElement === body);
      body.append(...own.slice().sort(compare));
      body.hidden = own.every((row) => row.hidden);
    }
    const shown = rows.filter((row) => !row.hidden).length;
    form.elements.count.value = shown + " of " + rows.length + " rows";
  }

  function cell(text) {
    return text.trim().replace(/\s+/g, " ").replace(/[\\|`*_<>\[\]]/g, "\\$&");
  }

  function markdown() {
    const lines = ["| workload | target | ratio | interval | verdict |", "|---|---|---:|---:|---|"];
    for (const body of bodies) {
      for (const row of body.querySelectorAll("tr[data-target]:not([hidden])")) {
        const verdict = row.querySelector(".verdict .mark");
        const texts = [row.dataset.workload, row.dataset.target, row.querySelector(".ratio").textContent,
          row.querySelector(".interval").textContent, verdict ? verdict.textContent : ""];
        lines.push("| " + texts.map(cell).join(" | ") + " |");
      }
    }
    return lines.join("\n") + "\n";
  }

  // A page that was opened as a file may have no clipboard: the text is then shown, selected.
  function copied(text) {
    const area = document.createElement("textarea");
    area.value = text;
    area.setAttribute("aria-label", "The rows as Markdown");
    area.rows = 8;
    form.after(area);
    area.select();
    const done = document.execCommand("copy");
    if (done) {
      area.remove();
    }
    form.elements.count.value = done ? "copied as Markdown" : "press Ctrl+C to copy";
  }

  form.hidden = false;
  form.addEventListener("input", update);
  form.elements.copy.addEventListener("click", () => copied(markdown()));
  update();
})();
