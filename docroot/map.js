// The map of a topology: callers to the left, called to the right, edges as wide as their bytes.

import { bytes } from "./dom.js";
import { colour, css, figure, hover, onTap } from "./figure.js";

export const KINDS = {
  service: { text: "service", marker: "circle", mark: "●", shade: 0 },
  external: { text: "outside of what is measured", marker: "square", mark: "□", shade: 7 },
  ambiguous: { text: "ambiguous: several services fit", marker: "diamond", mark: "◇", shade: 1 },
  unattributed: { text: "process not known", marker: "triangle", mark: "△", shade: 4 },
};
// A node that is a whole machine looks like a service.
const look = (kind) => KINDS[kind] ?? KINDS.service;
const SWEEPS = 6;
const STEPS = 24;

// Place the nodes in columns: each one column right of whoever calls it, where calls go in a
// circle the lighter edge is passed over. Returns name -> {x, y}, and the size in columns and rows.
export function layout(nodes, edges) {
  const names = nodes.map((node) => node.name);
  const column = columns(names, edges);
  const rows = new Map();
  for (const name of names) {
    const at = column.get(name);
    if (!rows.has(at)) rows.set(at, []);
    rows.get(at).push(name);
  }
  const order = new Map(names.map((name, index) => [name, index]));
  const neighbours = new Map(names.map((name) => [name, []]));
  for (const { source, target } of edges) {
    neighbours.get(source).push(target);
    neighbours.get(target).push(source);
  }
  const height = Math.max(...[...rows.values()].map((row) => row.length));
  const position = new Map();
  const spread = (row) => row.forEach((name, at) =>
    position.set(name, ((at + 0.5) * height) / row.length));
  for (const row of rows.values()) spread(row);
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    for (const row of rows.values()) {
      const wanted = new Map(row.map((name) => {
        const own = neighbours.get(name);
        const sum = own.reduce((total, other) => total + position.get(other), 0);
        return [name, own.length ? sum / own.length : position.get(name)];
      }));
      row.sort((a, b) => wanted.get(a) - wanted.get(b) || order.get(a) - order.get(b));
      spread(row);
    }
  }
  const places = new Map(names.map((name) =>
    [name, { x: column.get(name), y: height - position.get(name) }]));
  return { places, columns: rows.size, rows: height };
}

function columns(names, edges) {
  const column = new Map(names.map((name) => [name, 0]));
  const calls = new Map(names.map((name) => [name, new Set()]));
  const reaches = (from, to, seen = new Set()) => {
    if (from === to) return true;
    seen.add(from);
    return [...calls.get(from)].some((next) => !seen.has(next) && reaches(next, to, seen));
  };
  for (const { source, target } of edges) {  // the heaviest first
    if (source !== target && !reaches(target, source)) calls.get(source).add(target);
  }
  for (let round = 0; round < names.length; round += 1) {
    let isSettled = true;
    for (const [source, targets] of calls) {
      for (const target of targets) {
        if (column.get(target) <= column.get(source)) {
          column.set(target, column.get(source) + 1);
          isSettled = false;
        }
      }
    }
    if (isSettled) break;
  }
  return column;
}

// The line of an edge, and where its arrow sits. Against the direction, or within a column, it
// swings out so that it is told from the edge the other way.
function line(from, to) {
  const isForward = to.x > from.x;
  const swing = isForward ? 0 : from.x === to.x ? 0.32 : 0.45;
  const bend = (to.x - from.x) * 0.45;
  const a = isForward ? { x: from.x + bend, y: from.y } : { x: from.x + swing, y: from.y + swing };
  const b = isForward ? { x: to.x - bend, y: to.y } : { x: to.x + swing, y: to.y + swing };
  const xs = [], ys = [];
  for (let step = 0; step <= STEPS; step += 1) {
    const t = step / STEPS, u = 1 - t;
    const at = (key) => u ** 3 * from[key] + 3 * u * u * t * a[key] + 3 * u * t * t * b[key]
      + t ** 3 * to[key];
    xs.push(at("x"));
    ys.push(at("y"));
  }
  return { xs, ys };
}

export function draw(nodes, edges, { onEdge, onNode }) {
  const { places, columns: width, rows } = layout(nodes, edges);
  const height = Math.min(Math.max(52 * rows + 60, 240), 900);
  const most = Math.max(...edges.map((edge) => edge.bytes), 1);
  const heaviest = edges[0];
  const margin = Math.max(0.55, 0.08 * width);  // half of a name, in columns
  return figure({
    title: `${nodes.length} nodes, ${edges.length} edges`,
    description: `Map of ${nodes.length} nodes and ${edges.length} edges; most bytes, `
      + `${bytes(heaviest.bytes)}, from ${heaviest.source} to ${heaviest.target}. `
      + "The table of edges has all of it.",
    height, xRange: { start: -margin, end: width - 1 + margin }, yFixed: { start: -0.05, end: rows + 0.25 },
    isBare: true,
  }, (plot, Bokeh) => {
    const own = edges.filter((edge) => edge.source !== edge.target);
    const lines = own.map((edge) => line(places.get(edge.source), places.get(edge.target)));
    const shades = new Map(nodes.map((node) => [node.name, look(node.kind).shade]));
    // An edge to or from what is no service has the colour of that.
    const fill = own.map((edge) => colour(shades.get(edge.source) || shades.get(edge.target)));
    const text = own.map((edge) => `${edge.source} → ${edge.target}: ${bytes(edge.bytes)}`);
    const source = new Bokeh.ColumnDataSource({ data: {
      xs: lines.map(({ xs }) => xs), ys: lines.map(({ ys }) => ys), fill, text,
      width: own.map((edge) => 1.2 + 8 * Math.sqrt(edge.bytes / most)),
      dash: own.map((edge) => (edge.isInferred ? "dashed" : "solid")),
    } });
    const strokes = plot.multi_line({ field: "xs" }, { field: "ys" }, {
      source, line_color: { field: "fill" }, line_width: { field: "width" }, line_alpha: 0.5,
      line_dash: { field: "dash" },
      hover_line_alpha: 0.95, hover_line_color: { field: "fill" },
    });
    arrows(plot, Bokeh, lines, fill, own, most);
    // A node lies upon edges: a click on it is told of both, and is one on the node.
    let tapped = null;
    const tap = (what) => {
      if (tapped === null) {
        tapped = {};
        queueMicrotask(() => {
          if (tapped.node) onNode(tapped.node);
          else onEdge(tapped.edge);
          tapped = null;
        });
      }
      Object.assign(tapped, what);
    };
    const marks = nodes.map((node) => marked(plot, Bokeh, node, places.get(node.name), tap));
    names(plot, nodes, places);
    onTap(Bokeh, plot, source, (at) => tap({ edge: own[at] }));
    plot.add_tools(hover(Bokeh, [["", "@text"]], { renderers: marks }));
    plot.add_tools(hover(Bokeh, [["", "@text"]], { renderers: [strokes], line_policy: "interp" }));
  });
}

function arrows(plot, Bokeh, lines, fill, edges, most) {
  const at = Math.round(STEPS * 0.62);
  plot.scatter(lines.map(({ xs }) => xs[at]), lines.map(({ ys }) => ys[at]), {
    marker: "triangle", fill_color: fill, line_color: css("--paper"), line_width: 0.5,
    size: edges.map((edge) => 9 + 9 * Math.sqrt(edge.bytes / most)),
    angle: lines.map(({ xs, ys }) => {
      const box = plot.height / (plot.y_range.end - plot.y_range.start);
      const across = plot.width ?? 900;
      const wide = across / (plot.x_range.end - plot.x_range.start);
      return Math.atan2((ys[at + 1] - ys[at - 1]) * box, (xs[at + 1] - xs[at - 1]) * wide) - Math.PI / 2;
    }),
  });
}

function marked(plot, Bokeh, node, place, tap) {
  const { marker, shade } = look(node.kind);
  const source = new Bokeh.ColumnDataSource({ data: {
    x: [place.x], y: [place.y], text: [`${node.name}: ${bytes(node.bytes)}`],
  } });
  const renderer = plot.scatter({ field: "x" }, { field: "y" }, {
    source, marker, size: 17, line_width: 2.5, line_color: colour(shade),
    fill_color: shade ? css("--paper") : colour(shade), fill_alpha: 1,
  });
  onTap(Bokeh, plot, source, () => tap({ node }));
  return renderer;
}

function names(plot, nodes, places) {
  const machines = new Set(nodes.flatMap(({ members }) => members.map(({ instance }) => instance))
    .filter(Boolean));
  const short = (name) => {
    const [only] = machines;
    const own = machines.size === 1 && name.startsWith(`${only}/`) ? name.slice(only.length + 1) : name;
    return own.length > 26 ? `${own.slice(0, 12)}…${own.slice(-12)}` : own;
  };
  // Above and below by turns, so that neighbours of a row have room.
  const isAbove = nodes.map(({ name }) => places.get(name).x % 2 === 0);
  plot.text(nodes.map(({ name }) => places.get(name).x), nodes.map(({ name }) => places.get(name).y),
    nodes.map(({ name }) => short(name)), {
      y_offset: isAbove.map((above) => (above ? -12 : 12)), text_align: "center",
      text_baseline: isAbove.map((above) => (above ? "bottom" : "top")), text_font_size: "12px",
      text_font: "system-ui, sans-serif", text_color: css("--ink"),
      background_fill_color: css("--paper"), background_fill_alpha: 0.75,
    });
}
