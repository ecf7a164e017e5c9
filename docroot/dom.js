// Elements, numbers and times. Text from logs only ever becomes textContent, never markup.

export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(element.style, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

// A table with a caption; each cell is text, a node, or [text or node, class].
export function table(caption, columns, rows, properties = {}) {
  const head = el("tr", {}, columns.map((column) => {
    const [text, kind] = Array.isArray(column) ? column : [column, ""];
    return el("th", { scope: "col", class: kind }, text);
  }));
  const body = rows.map((row) => el("tr", {}, row.map((cell, index) => {
    const [content, kind] = Array.isArray(cell) ? cell : [cell, undefined];
    const inherited = Array.isArray(columns[index]) ? columns[index][1] : "";
    const attributes = { class: kind ?? inherited };
    return index === 0
      ? el("th", { scope: "row", ...attributes }, content ?? "")
      : el("td", attributes, content ?? "");
  })));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el("table", properties, el("caption", {}, caption), el("thead", {}, head),
      el("tbody", {}, body)));
}

// A section of figures or numbers with a heading.
export function card(title, ...children) {
  return el("section", { class: "card", "aria-label": title }, el("h2", {}, title), ...children);
}

export function empty(text) {
  return el("p", { class: "empty" }, text);
}

export function seconds(value) {
  if (value === undefined || value === null || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size < 5e-7) return "0";
  if ( size < 0.0009995) return `${(value * 1e6).toFixed(0)} µs`;
  if (size < 0.9995) return `${(value * 1e3).toFixed(size < 0.00995 ? 2 : size < 0.0995 ? 1 : 0)} ms`;
  if (size < 59.95) return `${value.toFixed(size < 9.995 ? 2 : 1)} s`;
  const minutes = Math.floor(size / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(size % 60)} s`;
  if (minutes < 2880) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${Math.floor(minutes / 1440)} days ${Math.floor((minutes % 1440) / 60)} h`;
}

export function bytes(value) {
  if (value === undefined || value === null || !Number.isFinite(value)) return "–";
  let rest = value;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (Math.abs(rest) < 1024) {
      const digits = unit === "B" || Number.isInteger(rest) || rest >= 100 ? 0 : 1;
      return `${rest.toFixed(digits)} ${unit}`;
    }
    rest /= 1024;
  }
  return `${rest.toFixed(1)} TiB`;
}

export function count(value) {
  return value === undefined ? "–" : value.toLocaleString("en");
}

export function percent(part, whole) {
  if (!whole) return "–";
  const share = (100 * part) / whole;
  return `${share.toFixed(share === 100 || share === 0 ? 0 : share > 99.9 || share < 0.1 ? 2 : 1)} %`;
}

export function utc(unixTs, withSeconds = true) {
  if (unixTs === undefined) return "–";
  return new Date(unixTs * 1000).toISOString().slice(0, withSeconds ? 19 : 16).replace("T", " ");
}

export function dateOf(unixTs) {
  return new Date(unixTs * 1000).toISOString().slice(0, 10);
}

export function midnight(date) {
  return Date.parse(`${date}T00:00:00Z`) / 1000;
}

export function sizeName(destination, sizeBytes) {
  return `${bytes(sizeBytes)} by ${destination}`;
}
