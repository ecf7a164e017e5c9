// Results: how long transfers took, of the days, nicknames and kinds that are chosen.

import { figures } from "./data.js";
import {
  card, count, dateOf, el, empty, midnight, percent, seconds, sizeName, table,
} from "./dom.js";
import {
  byDay, ecdf, errorBars, keyOf, keysOf, labelOf, METRICS, overTime, plainCurve, quantile, thin,
  totals,
} from "./curves.js";
import { colour } from "./figure.js";

const DAYS_OF_POINTS = 7;  // up to here each transfer is a point, beyond each day is one
const HOUR_MS = 3600000;

export async function show(section, _path, query) {
  const index = await figures("index.json", { isLive: true });
  if (index === null || !index.days.length) {
    section.replaceChildren(empty("No results yet: no day has been published. They come some "
      + "seconds after the first transfers."));
    return;
  }
  const [first, last] = [index.days[0], index.days.at(-1)];
  const yearAgo = dateOf(midnight(last) - 364 * 86400);
  const from = valid(query.get("from")) ?? (yearAgo > first ? yearAgo : first);
  const to = valid(query.get("to")) ?? last;
  const dates = index.days.filter((date) => date >= from && date <= to);
  const choice = { from, to, dates, first, last, hidden: new Set(query.getAll("hide")) };
  const summaries = await summariesOf(dates, last);
  const keys = keysOf(summaries.map(([, nicknames]) => nicknames));
  const body = el("div", {});
  section.replaceChildren(controls(choice, keys), body);
  await draw(body, choice, summaries, keys);
}

function valid(date) {
  return date && /^\d{4}-\d\d-\d\d$/.test(date) ? date : null;
}

async function summariesOf(dates, last) {
  const years = new Map();
  await Promise.all([...new Set(dates.map((date) => date.slice(0, 4)))].map(async (year) => {
    const found = await figures(`${year}.json`, { isLive: last.startsWith(year) });
    years.set(year, found?.days ?? {});
  }));
  return dates.map((date) => [date, years.get(date.slice(0, 4))[date] ?? {}]);
}

function go(choice, changes) {
  const next = { ...choice, ...changes };
  const query = new URLSearchParams({ from: next.from, to: next.to });
  for (const key of next.hidden) query.append("hide", key);
  location.hash = `#results?${query}`;
}

function controls(choice, keys) {
  let isFound = false;
  const preset = (name, days) => {
    const begin = days === null ? choice.first : dateOf(midnight(choice.last) - (days - 1) * 86400);
    const from = begin < choice.first ? choice.first : begin;
    const isChosen = !isFound && choice.to === choice.last && choice.from === from;
    isFound ||= isChosen;
    return el("button", {
      type: "button", "aria-pressed": String(isChosen),
      onclick: () => go(choice, { from, to: choice.last }),
    }, name);
  };
  const day = (name, value, change) => el("label", {}, name, el("input", {
    type: "date", value, min: choice.first, max: choice.last,
    onchange: (event) => valid(event.target.value) && change(event.target.value),
  }));
  const alone = new Set(keys.map((key) => key.split("\n")[0])).size <= 1;
  const nicknames = [...new Set(keys.map((key) => key.split("\n")[0]))];
  const toggle = (own, isOn) => {
    const hidden = new Set(choice.hidden);
    for (const key of own) isOn ? hidden.delete(key) : hidden.add(key);
    go(choice, { hidden });
  };
  const boxes = keys.map((key, index) => el("label", { class: "chip" },
    el("input", {
      type: "checkbox", ...(choice.hidden.has(key) ? {} : { checked: true }),
      onchange: (event) => toggle([key], event.target.checked),
    }),
    el("span", { class: "swatch", "aria-hidden": "true", style: { background: colour(index) } }),
    labelOf(key, alone)));
  const hosts = alone ? [] : nicknames.map((nickname) => {
    const own = keys.filter((key) => key.split("\n")[0] === nickname);
    return el("label", { class: "chip" }, el("input", {
      type: "checkbox", ...(own.every((key) => choice.hidden.has(key)) ? {} : { checked: true }),
      onchange: (event) => toggle(own, event.target.checked),
    }), nickname);
  });
  return el("div", { class: "controls" },
    el("div", { class: "group", role: "group", "aria-label": "Days" },
      preset("Last day", 1), preset("7 days", 7), preset("30 days", 30), preset("Year", 365),
      preset("All", null),
      day("from", choice.from, (from) => go(choice, { from, to: from > choice.to ? from : choice.to })),
      day("to", choice.to, (to) => go(choice, { to, from: to < choice.from ? to : choice.from }))),
    hosts.length ? el("div", { class: "group", role: "group", "aria-label": "Nicknames" }, hosts)
      : null,
    el("div", { class: "group", role: "group", "aria-label": "Sizes and destinations" }, boxes));
}

async function draw(body, choice, summaries, keys) {
  const { dates, hidden } = choice;
  if (!dates.length) {
    body.replaceChildren(empty(`No day from ${choice.from} to ${choice.to} has been published.`));
    return;
  }
  const arePoints = dates.length <= DAYS_OF_POINTS;
  const days = arePoints ? await pointsOf(dates, choice.last) : null;
  const alone = new Set(keys.map((key) => key.split("\n")[0])).size <= 1;
  const labels = (key) => labelOf(key, alone);
  const byMetric = Object.fromEntries(Object.keys(METRICS).map((metric) => [metric,
    totals(summaries, (nickname, node) =>
      node.series.map((series) => [keyOf(nickname, series), series[metric]]))]));
  const onDays = (from, to) => go(choice, { from, to });
  const rows = Object.entries(METRICS).map(([metric, { name, unit, text }]) =>
    el("section", { class: "card pair", "aria-label": name }, el("h2", {}, name),
      arePoints ? overTime(days, metric, { keys, hidden })
        : byDay(summaries, metric, { keys, hidden, onDays }),
      ecdf(byMetric[metric], { title: `${name}: share of transfers`, unit, text, keys, labels, hidden })));
  const what = dates.length === 1 ? dates[0] : `${dates[0]} to ${dates.at(-1)}`;
  body.replaceChildren(
    overview(what, summaries, keys, hidden, byMetric, labels),
    ...rows,
    errors(summaries, days, keys, hidden),
    circuits(summaries, days),
    guards(summaries));
}

async function pointsOf(dates, last) {
  const found = await Promise.all(dates.map((date) =>
    figures(`${date}/day.json`, { isLive: date === last })));
  return new Map(dates.map((date, at) => [date, found[at] ?? { nicknames: {} }]));
}

function overview(what, summaries, keys, hidden, byMetric, labels) {
  const sums = new Map(keys.map((key) => [key, { success: 0, incomplete: 0, failed: 0 }]));
  for (const [, nicknames] of summaries) {
    for (const [nickname, node] of Object.entries(nicknames)) {
      for (const series of node.series) {
        const sum = sums.get(keyOf(nickname, series));
        sum.success += series.success;
        sum.incomplete += series.incomplete;
        sum.failed += Object.values(series.errors).reduce((a, b) => a + b, 0);
      }
    }
  }
  const of = (metric, key, fraction) => {
    const total = byMetric[metric].get(key);
    return total ? METRICS[metric].text(quantile(total, fraction)) : "–";
  };
  const rows = keys.filter((key) => !hidden.has(key)).map((key) => {
    const sum = sums.get(key);
    const ended = sum.success + sum.failed;
    return [labels(key), count(ended + sum.incomplete), percent(sum.success, ended),
      of("ttfb", key, 0.5), of("ttfb", key, 0.95), of("ttlb", key, 0.5), of("ttlb", key, 0.95),
      of("mbps", key, 0.5)];
  });
  const text = rows.length ? null : empty("Nothing is chosen: tick a size and destination above.");
  return card(`Transfers, ${what}`, text ?? table("By size and destination", [
    "Transfers", ["Count", "number"], ["Succeeded", "number"],
    ["First byte, median", "number"], ["95 %", "number"],
    ["Last byte, median", "number"], ["95 %", "number"], ["Throughput, median", "number"]], rows));
}

function errors(summaries, days, keys, hidden) {
  const title = days !== null && summaries.length === 1 ? "Failed transfers by hour" : "Failed transfers by day";
  const codes = new Map();
  const bars = [];
  for (const [date, nicknames] of summaries) {
    const bar = { x: midnight(date) * 1000 + 12 * HOUR_MS, width: 24 * HOUR_MS, counts: new Map() };
    for (const [nickname, node] of Object.entries(nicknames)) {
      for (const series of node.series) {
        if (hidden.has(keyOf(nickname, series))) continue;
        for (const [code, number] of Object.entries(series.errors)) {
          bar.counts.set(code, (bar.counts.get(code) ?? 0) + number);
          codes.set(code, (codes.get(code) ?? 0) + number);
        }
      }
    }
    bars.push(bar);
  }
  const ordered = [...codes].sort((a, b) => b[1] - a[1]).map(([code]) => code);
  const drawn = days !== null && summaries.length === 1 && !hidden.size ? byHour(days, summaries[0][0]) : bars;
  const rows = ordered.map((code, index) => [
    el("span", {}, el("span", { class: "swatch", "aria-hidden": "true",
      style: { background: colour(index + 4) } }), code), count(codes.get(code))]);
  return card("Errors", errorBars(title, drawn, ordered),
    rows.length ? table("Failed transfers by code", ["Code", ["Transfers", "number"]], rows) : null);
}

function byHour(days, date) {
  const begin = midnight(date) * 1000;
  const bars = Array.from({ length: 24 }, (_, hour) => (
    { x: begin + (hour + 0.5) * HOUR_MS, width: HOUR_MS, counts: new Map() }));
  for (const node of Object.values(days.get(date).nicknames)) {
    for (const [code, hours] of Object.entries(node.errors)) {
      hours.forEach((number, hour) => {
        const counts = bars[hour].counts;
        counts.set(code, (counts.get(code) ?? 0) + number);
      });
    }
  }
  return bars;
}

function circuits(summaries, days) {
  const curves = new Map();
  const point = (nickname, isLine) => {
    if (!curves.has(nickname)) curves.set(nickname, { x: [], y: [], isLine });
    return curves.get(nickname);
  };
  if (days !== null) {
    for (const [, day] of [...days].sort()) {
      for (const [nickname, node] of Object.entries(day.nicknames)) {
        const curve = point(nickname, false);
        node.circuits.unix_ts.forEach((ts, at) => {
          curve.x.push(ts * 1000);
          curve.y.push(node.circuits.values[at]);
        });
      }
    }
    for (const curve of curves.values()) {
      const kept = thin(curve.y);
      curve.x = kept.map((at) => curve.x[at]);
      curve.y = kept.map((at) => curve.y[at]);
    }
  } else {
    for (const [date, nicknames] of summaries) {
      for (const [nickname, node] of Object.entries(nicknames)) {
        if (!node.circuits.percentiles) continue;
        const curve = point(nickname, true);
        curve.x.push(midnight(date) * 1000 + 12 * HOUR_MS);
        curve.y.push(node.circuits.percentiles[2]);
      }
    }
  }
  const keys = [...curves.keys()].sort();
  const distributions = totals(summaries, (nickname, node) => [[nickname, node.circuits]]);
  const options = { unit: "seconds", text: seconds, keys };
  return el("section", { class: "card pair", "aria-label": "Circuits" },
    el("h2", {}, "Circuits: time to build three hops"),
    plainCurve(days !== null ? "Build time over time" : "Build time by day: median", curves, options),
    ecdf(distributions, { title: "Build time: share of circuits", labels: (key) => key, ...options }));
}

function guards(summaries) {
  const found = new Map();
  for (const [date, nicknames] of summaries) {
    for (const [nickname, node] of Object.entries(nicknames)) {
      for (const [fingerprint, name, transfers] of node.guards) {
        const key = `${nickname}\n${fingerprint}`;
        const guard = found.get(key)
          ?? { nickname, fingerprint, name, transfers: 0, days: 0, first: date };
        guard.transfers += transfers;
        guard.days += 1;
        guard.last = date;
        found.set(key, guard);
      }
    }
  }
  if (!found.size) return card("Guards", empty("No transfer was linked to a guard."));
  const rows = [...found.values()].sort((a, b) => b.transfers - a.transfers).slice(0, 20);
  const most = rows[0].transfers;
  return card("Guards", table("First relays of the circuits that carried transfers"
    + (found.size > rows.length ? `: the ${rows.length} most used of ${found.size}` : ""), [
    "Relay", "Fingerprint", "Host", ["Transfers", "number"], ["Share", "bar"], "First day",
    "Last day", ["Days", "number"]],
  rows.map((guard) => [guard.name || "(no name)", [el("code", {}, guard.fingerprint)],
    guard.nickname, count(guard.transfers),
    [el("span", { class: "meter", "aria-hidden": "true" },
      el("span", { style: { width: `${(100 * guard.transfers) / most}%` } })), "bar"],
    guard.first, guard.last, count(guard.days)])));
}
