// The docroot's small JSON files. The browser's own cache asks by entity tag whether one changed.

const known = new Map();

// Return {document, date} or null if there is no such file. `date` is the server's clock.
export async function load(name) {
  const response = await fetch(name, { cache: "no-cache" });
  if (response.status === 404) return null;
  if (!response.ok) throw new Error(`${name}: the server says ${response.status}`);
  const stamp = Date.parse(response.headers.get("Date") ?? "");
  return { document: await response.json(), date: Number.isNaN(stamp) ? Date.now() : stamp };
}

// The same, kept while the page is open unless `isLive`: figures of days that are over stay.
export async function figures(name, { isLive = false } = {}) {
  if (!isLive && known.has(name)) return known.get(name);
  const found = await load(`figures/${name}`);
  const document = found === null ? null : found.document;
  known.set(name, document);
  return document;
}

export function forget() {
  known.clear();
}
