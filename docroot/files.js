// Files: the list is in the page itself; here it gets checksums and a filter.

import { load } from "./data.js";
import { el } from "./dom.js";

let isDone = false;

export async function show() {
  if (isDone) return;
  isDone = true;
  const body = document.querySelector("#file-table tbody");
  const rows = [...body.rows];
  const tools = document.getElementById("file-tools");
  if (!rows.length) return;
  const shown = el("span", { role: "status" }, `${rows.length} of ${rows.length} files`);
  tools.replaceChildren(el("label", {}, "Filter by name ", el("input", {
    type: "search", id: "file-filter", autocomplete: "off",
    oninput: (event) => {
      const wanted = event.target.value.toLowerCase();
      let number = 0;
      for (const row of rows) {
        row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
        number += row.hidden ? 0 : 1;
      }
      shown.textContent = `${number} of ${rows.length} files`;
    },
  })), " ", shown);
  const found = await load("index.json");
  if (found === null) return;
  const sums = new Map(found.document.files.map((file) => [file.name, file.sha256]));
  document.querySelector("#file-table thead tr").append(el("th", { scope: "col" }, "SHA-256"));
  for (const row of rows) {
    const name = decodeURIComponent(row.cells[0].querySelector("a").getAttribute("href"));
    row.append(el("td", {}, el("code", {}, sums.get(name) ?? "")));
  }
}
