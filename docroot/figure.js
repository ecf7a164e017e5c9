// Figures by Bokeh, in the page's colours. Each is an image to those who cannot see it, with a
// text that says what it shows; the numbers stand in a table beside it.

import { el, empty } from "./dom.js";

const PALETTE = {
  light: ["#0b62b8", "#b85c00", "#0a7a52", "#8a3ea6", "#b3261e", "#00707d", "#6b5b00", "#5a5f66"],
  dark: ["#7db7ff", "#ffb35c", "#5ed6a4", "#d59bf0", "#ff8a80", "#5fd3e0", "#e0d060", "#b5bcc4"],
};
const DASHES = ["solid", "dashed", "dotted", "dotdash"];

const TIME_FORMATS = {
  milliseconds: "%H:%M:%S.%3N", seconds: "%H:%M:%S", minsec: "%H:%M:%S", minutes: "%H:%M",
  hourmin: "%H:%M", hours: "%H:%M", days: "%d %b", months: "%b %Y", years: "%Y",
};

let loading = null;
let last = Promise.resolve();
const shown = new Map();

// Resolves with Bokeh as soon as both of its scripts have run.
export function bokeh() {
  loading ??= new Promise((resolve, reject) => {
    const isThere = () => globalThis.Bokeh?.Plotting !== undefined;
    if (isThere()) return resolve(globalThis.Bokeh);
    const script = document.getElementById("bokeh-api");
    script.addEventListener("load", () => resolve(globalThis.Bokeh));
    for (const id of ["bokeh-core", "bokeh-api"]) {
      document.getElementById(id).addEventListener("error", () => reject(
        new Error("bokeh.min.js is not beside this page")));
    }
  });
  return loading;
}

export function isDark() {
  return document.documentElement.dataset.theme === "dark";
}

export function colour(index) {
  const palette = PALETTE[isDark() ? "dark" : "light"];
  return palette[index % palette.length];
}

export function dash(index) {
  return DASHES[Math.floor(index / PALETTE.light.length) % DASHES.length];
}

export function css(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function frame(description, height) {
  return el("div", {
    class: "figure", role: "img", "aria-label": description, style: { height: `${height}px` },
  });
}

// Make a figure. `draw(plot, Bokeh)` adds to it; without anything to draw, say so in words.
//   options: title, description, height, x, y (axis labels), xType ("linear", "datetime"),
//   xRange ({start, end}), yFixed (the same), yRange (names, from below), yEnd (the y axis begins
//   at 0), isBare (no axes).
export function figure(options, draw) {
  const place = frame(options.description, options.height ?? 260);
  const holder = el("figure", {}, el("figcaption", {}, options.title), place);
  inTurn(async () => {
    const Bokeh = await bokeh();
    if (!place.isConnected) return;
    const plot = make(Bokeh, options);
    draw(plot, Bokeh);
    const view = await Bokeh.Plotting.show(plot, place);
    forget(holder);
    shown.set(holder, { view, plot });
    place.dataset.drawn = "yes";
    performance.mark("figure drawn");
    place.addEventListener("dblclick", () => plot.reset.emit());
    sweep();
  }).catch((error) => {
    place.replaceChildren(empty(`This figure could not be drawn: ${error.message}`));
    console.error(error);
  });
  return holder;
}

// One figure after the other, from above: the first is to be seen before the last is begun.
function inTurn(work) {
  const done = last.then(work);
  last = done.catch(() => {}).then(() => new Promise((resolve) => { setTimeout(resolve); }));
  return done;
}

// Free the figures that are no longer in the page.
function sweep() {
  for (const holder of [...shown.keys()]) if (!holder.isConnected) forget(holder);
}

function forget(holder) {
  const old = shown.get(holder);
  if (!old) return;
  shown.delete(holder);
  const { model, document } = { model: old.plot, document: old.plot.document };
  old.view.remove();
  const index = globalThis.Bokeh.documents.indexOf(document);
  if (index >= 0) globalThis.Bokeh.documents.splice(index, 1);
  document?.remove_root(model);
}

function make(Bokeh, options) {
  const ink = css("--ink"), line = css("--line"), muted = css("--muted");
  const isFine = matchMedia("(pointer: fine)").matches;
  const tools = isFine ? [new Bokeh.BoxZoomTool({ dimensions: "auto" })] : [];
  const plot = Bokeh.Plotting.figure({
    height: options.height ?? 260,
    sizing_mode: "stretch_both",
    toolbar_location: null,
    tools,
    x_axis_type: options.xType ?? "linear",
    y_axis_type: options.yRange ? "auto" : "linear",
    x_axis_label: options.x,
    y_axis_label: options.y,
    x_range: options.xRange ? new Bokeh.Range1d(options.xRange) : new Bokeh.DataRange1d(),
    y_range: options.yFixed ? new Bokeh.Range1d(options.yFixed) : options.yRange ?? new Bokeh.DataRange1d({ start: 0, ...(options.yEnd ? { end: options.yEnd } : {}) }),
    background_fill_alpha: 0,
    border_fill_alpha: 0,
    outline_line_color: null,
    min_border_right: 14,
    lod_threshold: null,
  });
  for (const axis of [...plot.xaxes, ...plot.yaxes]) {
    axis.axis_line_color = line;
    axis.major_tick_line_color = line;
    axis.minor_tick_line_color = null;
    axis.major_label_text_color = muted;
    axis.axis_label_text_color = ink;
    axis.axis_label_text_font_style = "normal";
    axis.axis_label_text_font_size = "12px";
    axis.major_label_text_font_size = "12px";
    axis.axis_label_text_font = axis.major_label_text_font = "system-ui, sans-serif";
  }
  if (options.isBare) {
    for (const part of [...plot.xaxes, ...plot.yaxes, ...plot.xgrids, ...plot.ygrids]) {
      part.visible = false;
    }
  }
  if (options.xType === "datetime") Object.assign(plot.xaxes[0].formatter, TIME_FORMATS);
  for (const grid of [...plot.xgrids, ...plot.ygrids]) {
    grid.grid_line_color = line;
    grid.grid_line_alpha = 0.55;
  }
  return plot;
}

// A hover that shows text which we wrote ourselves; `rows` are [label, "@column"].
export function hover(Bokeh, rows, options = {}) {
  return new Bokeh.HoverTool({ tooltips: rows, ...options });
}

const onSource = new WeakMap();

// Call `chosen(index)` whenever a glyph of the source is clicked.
export function onTap(Bokeh, plot, source, chosen) {
  onSource.set(source, chosen);
  // One tool for all: of several, Bokeh would use the first alone.
  if (plot.toolbar.tools.some((tool) => tool instanceof Bokeh.TapTool)) return;
  plot.add_tools(new Bokeh.TapTool({ behavior: "inspect", callback: {
    execute(_tool, { source: of }) {
      const [index] = of.inspected.indices;
      if (index !== undefined) onSource.get(of)?.(index);
    },
  } }));
}
