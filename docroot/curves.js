// The curves of results: points of days, percentiles of many days, distributions, errors.

import { dateOf, el, empty, midnight, seconds, sizeName, utc } from "./dom.js";
import { colour, css, dash, figure, hover, onTap } from "./figure.js";

const POINTS = 1000;
const MOST_DAYS = 120;  // more are drawn by week
const RATIO = 1.02;

export const METRICS = {
  ttfb: { name: "Time to first byte", unit: "seconds", text: seconds },
  ttlb: { name: "Time to last byte", unit: "seconds", text: seconds },
  mbps: { name: "Throughput", unit: "Mbit/s", text: (value) => `${value.toPrecision(3)} Mbit/s` },
};

export function keyOf(nickname, series) {
  return `${nickname}\n${series.destination}\n${series.size_bytes}`;
}

export function labelOf(key, isAlone) {
  const [nickname, destination, size] = key.split("\n");
  return isAlone ? sizeName(destination, Number(size))
    : `${nickname}: ${sizeName(destination, Number(size))}`;
}

// Places of at most POINTS values: the first, the last, least and greatest of each bucket.
export function thin(values) {
  const size = values.length;
  if (size <= POINTS) return values.map((_, index) => index);
  const buckets = (POINTS - 2) / 2;
  const kept = new Set([0, size - 1]);
  for (let bucket = 0; bucket < buckets; bucket += 1) {
    const begin = Math.floor((bucket * size) / buckets);
    const end = Math.floor(((bucket + 1) * size) / buckets);
    let low = begin, high = begin;
    for (let at = begin; at < end; at += 1) {
      if (values[at] < values[low]) low = at;
      if (values[at] > values[high]) high = at;
    }
    kept.add(low).add(high);
  }
  return [...kept].sort((a, b) => a - b);
}

// Curves of one metric over some days of points: by key {x, y, day, place}.
function joined(days, metric) {
  const curves = new Map();
  for (const [date, day] of [...days].sort()) {
    for (const [nickname, node] of Object.entries(day.nicknames)) {
      for (const series of node.series) {
        const key = keyOf(nickname, series);
        if (!curves.has(key)) curves.set(key, { x: [], y: [], day: [], place: [] });
        const curve = curves.get(key);
        const points = series[metric];
        for (let at = 0; at < points.values.length; at += 1) {
          curve.x.push(points.unix_ts[at] * 1000);
          curve.y.push(points.values[at]);
          curve.day.push(date);
          curve.place.push(points.transfers[at]);
        }
      }
    }
  }
  for (const curve of curves.values()) {
    const kept = thin(curve.y);
    for (const name of Object.keys(curve)) curve[name] = kept.map((at) => curve[name][at]);
  }
  return curves;
}

// All keys that there are in days or years, in order; the place in it is the colour.
export function keysOf(summaries) {
  const keys = new Set();
  for (const nicknames of summaries) {
    for (const [nickname, node] of Object.entries(nicknames)) {
      for (const series of node.series) keys.add(keyOf(nickname, series));
    }
  }
  return inOrder(keys);
}

// By nickname, then destination, then size as a number.
function inOrder(keys) {
  return [...keys].map((key) => [key, key.split("\n")]).sort(([, a], [, b]) =>
    a[0].localeCompare(b[0]) || a[1].localeCompare(b[1]) || a[2] - b[2]).map(([key]) => key);
}

function isAlone(keys) {
  return new Set(keys.map((key) => key.split("\n")[0])).size <= 1;
}

// What the colours mean, where no control says it.
export function legend(keys) {
  const alone = isAlone(keys);
  return el("ul", { class: "legend" }, keys.map((key, index) => el("li", {},
    el("span", { class: "swatch", "aria-hidden": "true", style: { background: colour(index) } }),
    labelOf(key, alone))));
}

function nothing(title, text) {
  return el("figure", {}, el("figcaption", {}, title), empty(text));
}

const NO_POINTS = {
  ttfb: "No transfer of this choice got a first byte.",
  ttlb: "No transfer of this choice got its last byte.",
  mbps: "Throughput is told of transfers of 1 MiB and 5 MiB; there is none in this choice.",
};

// One metric of some days, a point for each transfer (thinned); a click opens it.
export function overTime(days, metric, { title, keys, hidden = new Set() } = {}) {
  const { name, unit, text } = METRICS[metric];
  const curves = joined(days, metric);
  const all = keys ?? inOrder(curves.keys());
  const visible = all.filter((key) => !hidden.has(key) && curves.get(key)?.x.length);
  title ??= `${name} over time`;
  if (!visible.length) return nothing(title, NO_POINTS[metric]);
  const alone = isAlone(all);
  const total = visible.reduce((sum, key) => sum + curves.get(key).x.length, 0);
  return figure({
    title, xType: "datetime", x: "UTC", y: unit,
    description: `${title}: ${total} points in ${visible.length} series; `
      + "the table of this view has their medians.",
  }, (plot, Bokeh) => {
    const renderers = [];
    for (const key of visible) {
      const curve = curves.get(key);
      const index = all.indexOf(key);
      const source = new Bokeh.ColumnDataSource({ data: {
        ...curve,
        text: curve.y.map(text), when: curve.x.map((x) => utc(x / 1000)),
        label: curve.x.map(() => labelOf(key, alone)),
      } });
      if (curve.x.length > 1) {
        plot.line({ field: "x" }, { field: "y" }, {
          source, line_color: colour(index), line_alpha: 0.35, line_width: 1.2,
          line_dash: dash(index),
        });
      }
      const dots = plot.scatter({ field: "x" }, { field: "y" }, {
        source, size: curve.x.length > 300 ? 4 : 7, fill_color: colour(index),
        line_color: css("--paper"), line_width: 0.5, fill_alpha: 0.9,
      });
      renderers.push(dots);
      onTap(Bokeh, plot, source, (at) => {
        location.hash = `#transfers/${curve.day[at]}/${curve.place[at]}`;
      });
    }
    plot.add_tools(hover(Bokeh, [["", "@label"], ["", "@text"], ["", "@when"]], { renderers }));
  });
}

// One metric of many days: medians, and where 90 % of the transfers lie; of each day, or of each
// week if the days are very many.
export function byDay(summaries, metric, { keys, hidden = new Set(), onDays } = {}) {
  const { name, unit, text } = METRICS[metric];
  const length = summaries.length > MOST_DAYS ? 7 : 1;
  const title = `${name} by ${length === 7 ? "week" : "day"}: median, and the middle 90 %`;
  const curves = new Map();
  for (const group of grouped(summaries, length)) {
    const found = totals(group.days, (nickname, node) =>
      node.series.map((series) => [keyOf(nickname, series), series[metric]]));
    for (const [key, total] of found) {
      if (hidden.has(key)) continue;
      if (!curves.has(key)) {
        curves.set(key, { x: [], low: [], middle: [], high: [], from: [], to: [] });
      }
      const curve = curves.get(key);
      curve.x.push((midnight(group.from) + length * 43200) * 1000);
      curve.low.push(quantile(total, 0.05));
      curve.middle.push(quantile(total, 0.5));
      curve.high.push(quantile(total, 0.95));
      curve.from.push(group.days[0][0]);
      curve.to.push(group.days.at(-1)[0]);
    }
  }
  if (!curves.size) return nothing(title, NO_POINTS[metric]);
  const alone = isAlone(keys);
  return figure({
    title, xType: "datetime", x: "UTC", y: unit,
    description: `${title}: ${summaries.length} days, ${curves.size} series; `
      + "the table of this view has their medians.",
  }, (plot, Bokeh) => {
    const renderers = [];
    for (const [key, curve] of curves) {
      const index = keys.indexOf(key);
      const band = new Bokeh.ColumnDataSource({ data: withGaps(curve, length * 86400000) });
      plot.varea({ field: "x" }, { field: "low" }, { field: "high" }, {
        source: band, fill_color: colour(index), fill_alpha: 0.14,
      });
      plot.line({ field: "x" }, { field: "middle" }, {
        source: band, line_color: colour(index), line_width: 2, line_dash: dash(index),
      });
      const source = new Bokeh.ColumnDataSource({ data: {
        x: curve.x, y: curve.middle, label: curve.x.map(() => labelOf(key, alone)),
        text: curve.middle.map((value, at) =>
          `${text(value)} (${text(curve.low[at])} to ${text(curve.high[at])})`),
        when: curve.from.map((from, at) =>
          from === curve.to[at] ? from : `${from} to ${curve.to[at]}`),
      } });
      const dots = plot.scatter({ field: "x" }, { field: "y" }, {
        source, size: 6, fill_color: colour(index), line_color: null, fill_alpha: 0.9,
      });
      renderers.push(dots);
      onTap(Bokeh, plot, source, (at) => onDays(curve.from[at], curve.to[at]));
    }
    plot.add_tools(hover(Bokeh, [["", "@label"], ["", "@text"], ["", "@when"]], { renderers }));
  });
}

// Days in groups of `length`, each with the date that it begins with.
function grouped(summaries, length) {
  const groups = new Map();
  for (const [date, nicknames] of summaries) {
    const number = Math.floor(midnight(date) / 86400 / length);
    if (!groups.has(number)) groups.set(number, { from: dateOf(number * length * 86400), days: [] });
    groups.get(number).days.push([date, nicknames]);
  }
  return [...groups.values()];
}

// Where days are missing nothing is drawn, rather than a line across.
function withGaps(curve, stepMs) {
  const gaps = { x: [], low: [], middle: [], high: [] };
  curve.x.forEach((x, at) => {
    if (at > 0 && x - curve.x[at - 1] > 1.5 * stepMs) {
      gaps.x.push((x + curve.x[at - 1]) / 2);
      for (const name of ["low", "middle", "high"]) gaps[name].push(NaN);
    }
    for (const name of Object.keys(gaps)) gaps[name].push(curve[name][at]);
  });
  return gaps;
}

// Add histograms ([bucket, count, step, count, …]) into a map of bucket to count.
function add(total, flat) {
  let bucket = 0;
  for (let at = 0; at < flat.length; at += 2) {
    bucket += flat[at];
    total.set(bucket, (total.get(bucket) ?? 0) + flat[at + 1]);
  }
}

// By key the histogram over all days, with the exact least and greatest value.
export function totals(summaries, pick) {
  const found = new Map();
  for (const [, nicknames] of summaries) {
    for (const [nickname, node] of Object.entries(nicknames)) {
      for (const [key, distribution] of pick(nickname, node)) {
        if (!distribution.histogram) continue;
        if (!found.has(key)) found.set(key, { counts: new Map(), least: Infinity, most: -Infinity });
        const total = found.get(key);
        add(total.counts, distribution.histogram);
        total.least = Math.min(total.least, distribution.percentiles[0]);
        total.most = Math.max(total.most, distribution.percentiles[4]);
      }
    }
  }
  for (const total of found.values()) {
    total.buckets = [...total.counts].sort((a, b) => a[0] - b[0]);
    total.count = total.buckets.reduce((sum, [, number]) => sum + number, 0);
  }
  return found;
}

function value(total, bucket) {
  return Math.min(Math.max(RATIO ** bucket, total.least), total.most);
}

// The value below which a fraction of all lie, to one percent.
export function quantile(total, fraction) {
  let below = 0;
  for (const [bucket, number] of total.buckets) {
    below += number;
    if (below >= fraction * total.count - 1e-9) return value(total, bucket);
  }
  return total.most;
}

export function ecdf(distributions, { title, unit, text, keys, labels, hidden = new Set() }) {
  const visible = keys.filter((key) => !hidden.has(key) && distributions.has(key));
  if (!visible.length) return nothing(title, "Nothing of this choice to distribute.");
  const described = visible.map((key) => {
    const total = distributions.get(key);
    return `${labels(key)}: median ${text(quantile(total, 0.5))}, 95 % below `
      + `${text(quantile(total, 0.95))}, of ${total.count}`;
  });
  const most = Math.max(...visible.map((key) => quantile(distributions.get(key), 0.99)));
  return figure({
    title, x: unit, y: "share", xRange: { start: 0, end: most * 1.05 }, yEnd: 1.02, description: `${title}. ${described.join("; ")}.`,
  }, (plot, Bokeh) => {
    const renderers = [];
    for (const key of visible) {
      const total = distributions.get(key);
      const index = keys.indexOf(key);
      let below = 0;
      const x = [value(total, total.buckets[0][0])], y = [0];
      for (const [bucket, number] of total.buckets) {
        below += number;
        x.push(value(total, bucket));
        y.push(below / total.count);
      }
      const source = new Bokeh.ColumnDataSource({ data: {
        x, y, label: x.map(() => labels(key)),
        text: y.map((share, at) => `${(100 * share).toFixed(1)} % at most ${text(x[at])}`),
      } });
      renderers.push(plot.step({ field: "x" }, { field: "y" }, "after", {
        source, line_color: colour(index), line_width: 2, line_dash: dash(index),
      }));
    }
    plot.add_tools(hover(Bokeh, [["", "@label"], ["", "@text"]], { renderers, mode: "mouse" }));
  });
}

// Errors by code: of one day by hour, of more by day. `bars` are [{x, width, counts: Map}].
export function errorBars(title, bars, codes) {
  if (!codes.length) return nothing(title, "No transfer of this choice failed.");
  const total = bars.reduce((sum, bar) =>
    sum + [...bar.counts.values()].reduce((a, b) => a + b, 0), 0);
  return figure({
    title, xType: "datetime", x: "UTC", y: "failed transfers", height: 220,
    description: `${title}: ${total} failed transfers, by code ${codes.join(", ")}.`,
  }, (plot, Bokeh) => {
    const floor = bars.map(() => 0);
    const renderers = codes.map((code, index) => {
      const data = { x: [], bottom: [], top: [], code: [], number: [], when: [] };
      bars.forEach((bar, at) => {
        const number = bar.counts.get(code) ?? 0;
        if (!number) return;
        data.x.push(bar.x);
        data.bottom.push(floor[at]);
        floor[at] += number;
        data.top.push(floor[at]);
        data.code.push(code);
        data.number.push(number);
        data.when.push(bar.width < 86400000 ? utc(bar.x / 1000, false) : dateOf(bar.x / 1000));
      });
      return plot.vbar({ field: "x" }, bars[0].width * 0.85, { field: "top" }, { field: "bottom" }, {
        source: new Bokeh.ColumnDataSource({ data }), fill_color: colour(index + 4),
        line_color: css("--paper"), line_width: 0.5,
      });
    });
    plot.add_tools(hover(Bokeh, [["", "@code"], ["", "@number failed"], ["", "@when"]],
      { renderers }));
  });
}

// Values over time without transfers behind them, such as circuits' build times.
export function plainCurve(title, curves, { unit, text, keys, hidden = new Set() }) {
  const visible = keys.filter((key) => !hidden.has(key) && curves.get(key)?.x.length);
  if (!visible.length) return nothing(title, "No circuit of three hops was built.");
  return figure({
    title, xType: "datetime", x: "UTC", y: unit,
    description: `${title}: ${visible.length} series.`,
  }, (plot, Bokeh) => {
    const renderers = visible.map((key) => {
      const curve = curves.get(key);
      const index = keys.indexOf(key);
      const source = new Bokeh.ColumnDataSource({ data: {
        x: curve.x, y: curve.y, text: curve.y.map(text),
        when: curve.x.map((x) => utc(x / 1000)), label: curve.x.map(() => key),
      } });
      if (curve.isLine) {
        plot.line({ field: "x" }, { field: "y" }, { source, line_color: colour(index), line_width: 2 });
      }
      return plot.scatter({ field: "x" }, { field: "y" }, {
        source, size: 5, fill_color: colour(index), line_color: null, fill_alpha: 0.7,
      });
    });
    plot.add_tools(hover(Bokeh, [["", "@label"], ["", "@text"], ["", "@when"]], { renderers }));
  });
}
