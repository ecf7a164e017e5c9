// Topology: who called whom, with the bytes; what could not be attributed is told beside it.

import { load } from "./data.js";
import { bytes, card, count, el, empty, percent, table, utc } from "./dom.js";
import { draw, KINDS } from "./map.js";

const MOST_EDGES = 150;
const MOST_ROWS = 200;
const GROUPS = {
  node: ["service on each machine", (node) => node.id],
  service: ["service, of all machines", (node) => (node.kind === "service" ? node.service : node.id)],
  instance: ["machine", (node) => node.instance ?? node.kind],
};

let state = null;

export async function show(section) {
  const index = await load("index.json");
  const isThere = index?.document.files.some((file) => file.name === "topology.json");
  const found = isThere ? await load("topology.json") : null;
  if (found === null) {
    section.replaceChildren(empty("No topology has been published: no measurement here has recorded "
      + "which process talks to which."));
    return;
  }
  const topology = found.document;
  if (!topology.edges.length) {
    section.replaceChildren(empty("A topology has been published, but it has no connection."),
      coverage(topology));
    return;
  }
  state = { topology, group: "node", bucket: 0, body: el("div", {}) };
  section.replaceChildren(controls(), state.body, coverage(topology));
  redraw();
}

export function leave() {
  state = null;
}

function controls() {
  const { topology } = state;
  const buckets = topology.buckets ?? [];
  const group = el("select", {
    id: "topology-group",
    onchange: (event) => { state.group = event.target.value; redraw(); },
  }, Object.entries(GROUPS).map(([value, [name]]) => el("option", { value }, name)));
  const told = el("output", { for: "topology-time" }, when(0));
  const slider = buckets.length > 1 ? el("label", {}, "Time ", el("input", {
    type: "range", id: "topology-time", min: 0, max: buckets.length, value: 0, step: 1,
    "aria-valuetext": when(0),
    oninput: (event) => {
      state.bucket = Number(event.target.value);
      told.textContent = when(state.bucket);
      event.target.setAttribute("aria-valuetext", when(state.bucket));
      redraw();
    },
  }), told) : null;
  return el("div", { class: "controls" },
    el("div", { class: "group" }, el("label", {}, "Group by ", group), slider));
}

function when(bucket) {
  const { topology } = state;
  const window = topology.window;
  if (!bucket) return `all of it: ${utc(window.start_unix_ts)} to ${utc(window.end_unix_ts)}`;
  const begin = topology.buckets[bucket - 1].start_unix_ts;
  const end = topology.buckets[bucket]?.start_unix_ts ?? window.end_unix_ts;
  return `${utc(begin)} to ${utc(end)}`;
}

// The edges of the chosen time between the chosen groups, the most bytes first.
function chosen() {
  const { topology, group, bucket } = state;
  const nameOf = GROUPS[group][1];
  const nodes = new Map();
  const groupOf = new Map();
  for (const node of topology.nodes) {
    const name = nameOf(node);
    groupOf.set(node.id, name);
    // A machine of which one process is not known is a machine all the same.
    const kind = group === "instance" && node.instance ? "service" : node.kind;
    if (!nodes.has(name)) nodes.set(name, { name, kind, members: [], bytes: 0 });
    nodes.get(name).members.push(node);
  }
  const amounts = bucket
    ? new Map(topology.buckets[bucket - 1].edges.map(([at, ...rest]) => [at, rest])) : null;
  const edges = new Map();
  topology.edges.forEach((edge, at) => {
    const [size, connections] = amounts === null ? [edge.bytes, edge.connections]
      : amounts.get(at) ?? [0, 0];
    if (!size && !connections) return;
    const source = groupOf.get(edge.source), target = groupOf.get(edge.target);
    const key = JSON.stringify([source, target]);
    if (!edges.has(key)) {
      edges.set(key, {
        source, target, bytes: 0, connections: 0, ports: new Set(), isInferred: true, parts: [],
        first: Infinity, last: -Infinity,
      });
    }
    const sum = edges.get(key);
    sum.bytes += size;
    sum.connections += connections;
    sum.ports.add(`${edge.port}/${edge.protocol}`);
    sum.isInferred &&= Boolean(edge.is_inferred);
    sum.first = Math.min(sum.first, edge.first_unix_ts ?? Infinity);
    sum.last = Math.max(sum.last, edge.last_unix_ts ?? -Infinity);
    sum.parts.push(edge);
    nodes.get(source).bytes += size;
    nodes.get(target).bytes += size;
  });
  return { nodes, edges: [...edges.values()].sort((a, b) => b.bytes - a.bytes) };
}

function redraw() {
  const { nodes, edges } = chosen();
  const panel = el("div", { role: "status", class: "panel" },
    empty("Click a node or an edge, or choose one in the table."));
  const tell = (...content) => panel.replaceChildren(...content);
  const onEdge = (edge) => tell(...aboutEdge(edge));
  const onNode = (node) => tell(...aboutNode(node, edges, onEdge));
  const drawn = edges.slice(0, MOST_EDGES);
  const used = new Set(drawn.flatMap((edge) => [edge.source, edge.target]));
  const shown = [...nodes.values()].filter((node) => used.has(node.name));
  const map = drawn.length ? draw(shown, drawn, { onEdge, onNode })
    : empty("Nothing was said in this time.");
  state.body.replaceChildren(
    el("div", { class: "split" },
      card("Map", map, key(),
        edges.length > drawn.length ? el("p", { class: "note-small" },
          `The map has the ${drawn.length} largest of ${edges.length} edges; the table has more.`) : null),
      card("Chosen", panel)),
    card("Edges", table("Who called whom", ["Caller", "", "Called", "Port", ["Bytes", "number"],
      ["Connections", "number"], "How it is known"],
    edges.slice(0, MOST_ROWS).map((edge) => [
      choose(edge.source, () => onNode(nodes.get(edge.source))),
      [choose("→", () => onEdge(edge), `Edge from ${edge.source} to ${edge.target}`)],
      [choose(edge.target, () => onNode(nodes.get(edge.target)))],
      ports(edge), bytes(edge.bytes), count(edge.connections),
      edge.isInferred ? "inferred" : "seen"]))));
}

function choose(text, onclick, label) {
  return el("button", { type: "button", class: "link", onclick, "aria-label": label }, text);
}

function ports(edge) {
  const all = [...edge.ports];
  return all.slice(0, 3).join(", ") + (all.length > 3 ? ` and ${all.length - 3} more` : "");
}

function list(entries) {
  return el("dl", { class: "list" }, entries.filter(([, value]) => value !== undefined && value !== "")
    .flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

function aboutEdge(edge) {
  const sum = (field) => edge.parts.reduce((total, part) => total + (part[field] ?? 0), 0);
  const sources = [...new Set(edge.parts.flatMap((part) => part.sources ?? []))].join(", ");
  return [el("h3", {}, `${edge.source} → ${edge.target}`), list([
    ["Bytes", bytes(edge.bytes)], ["Connections", count(edge.connections)],
    ["Sent by the caller, whole time", bytes(sum("bytes_sent"))],
    ["Received, whole time", bytes(sum("bytes_received"))],
    ["Ports", ports(edge)], ["First", Number.isFinite(edge.first) ? utc(edge.first) : ""],
    ["Last", Number.isFinite(edge.last) ? utc(edge.last) : ""],
    ["Seen by", sources], ["Who is the caller", edge.isInferred ? "inferred" : "seen"],
  ])];
}

function aboutNode(node, edges, onEdge) {
  const ends = (name, own) => own.length ? [el("h4", {}, name), el("ul", {}, own.slice(0, 12).map((edge) =>
    el("li", {}, choose(edge.source === node.name ? edge.target : edge.source, () => onEdge(edge)),
      ` ${bytes(edge.bytes)}`)))] : [];
  const ips = [...new Set(node.members.flatMap((member) => member.instance_ips ?? []))];
  const open = [...new Set(node.members.flatMap((member) =>
    (member.ports ?? []).map(({ port, protocol }) => `${port}/${protocol}`)))];
  return [el("h3", {}, node.name), list([
    ["Kind", KINDS[node.kind]?.text ?? node.kind],
    ["Bytes", bytes(node.bytes)],
    ["Members", node.members.length > 1 ? count(node.members.length) : ""],
    ["Listens on", open.slice(0, 8).join(", ")], ["Addresses", ips.slice(0, 6).join(", ")],
  ]), ...ends("Calls", edges.filter((edge) => edge.source === node.name)),
  ...ends("Is called by", edges.filter((edge) => edge.target === node.name))];
}

function key() {
  return el("ul", { class: "legend" }, Object.values(KINDS).map(({ mark, text }) =>
    el("li", {}, el("span", { "aria-hidden": "true" }, `${mark} `), text)),
  el("li", {}, "– – the caller is inferred"), el("li", {}, "width: bytes; the arrow points at the called"));
}

function coverage(topology) {
  const found = topology.coverage ?? {};
  const whole = found.input_bytes;
  const row = (name, part) => found[`${part}_bytes`] === undefined ? null
    : [name, bytes(found[`${part}_bytes`]), percent(found[`${part}_bytes`], whole),
      count(found[`${part}_connections`])];
  const only = (name, field) => (found[`${field}_connections`]
    ? [name, "", "", count(found[`${field}_connections`])] : null);
  const lost = Object.entries(found.lost ?? {}).map(([what, number]) =>
    [`lost: ${what.replaceAll("_", " ")}`, "", "", count(number)]);
  const rows = [["All connections", bytes(whole), "", count(found.input_connections)],
    row("between known services", "matched"), row("to or from outside", "external"),
    row("ambiguous", "ambiguous"), row("of no known process", "unattributed"),
    only("only seen by polling", "polled"), only("with bytes that are not known", "without_bytes"),
    ...lost].filter(Boolean);
  return card("Coverage", table("How much of what was seen is on the map",
    ["What", ["Bytes", "number"], ["Share", "number"], ["Connections", "number"]], rows));
}
