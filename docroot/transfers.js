// Transfers: the list of a day, and one of them from the generator down to the kernel.

import { figures } from "./data.js";
import {
  bytes, card, count, el, empty, percent, seconds, sizeName, table, utc,
} from "./dom.js";
import { colour, css, figure, hover, onTap } from "./figure.js";

const PER_PAGE = 100;

// What each phase ends with, and who stamped that (docs/formats.md, "phases").
const PHASES = {
  socket: ["making the socket", "kernel"],
  connect: ["TCP connection to the proxy", "kernel"],
  greeting: ["greeting to the proxy", "kernel"],
  choice: ["the proxy's first answer", "kernel"],
  request: ["request to the proxy", "generator"],
  socks: ["talk with the proxy", "generator"],
  circuit: ["waiting for a circuit", "tor"],
  stream: ["connecting to the far end", "generator"],
  attach: ["circuit and far end", "generator"],
  command: ["sending the command", "generator"],
  response: ["waiting for the response", "generator"],
  first_byte: ["waiting for the payload", "generator"],
  payload: ["receiving the payload", "generator"],
  checksum: ["comparing checksums", "generator"],
  finish: ["the end", "generator"],
  rest: ["not stamped by anybody", "nobody"],
};
const LANES = { generator: 0, tor: 3, kernel: 2, "far end": 1, nobody: 7 };

export async function show(section, path) {
  const index = await figures("index.json", { isLive: true });
  if (index === null || !index.days.length) {
    section.replaceChildren(empty("No transfers yet: no day has been published."));
    return;
  }
  const date = index.days.includes(path[0]) ? path[0] : index.days.at(-1);
  const isLive = date === index.days.at(-1);
  const day = await figures(`${date}/day.json`, { isLive });
  const chosen = /^\d+$/.test(path[1] ?? "") ? Number(path[1]) : null;
  const body = el("div", {});
  section.replaceChildren(days(index.days, date), body);
  if (day === null || !day.transfers) {
    body.replaceChildren(empty(`No transfer ended on ${date}.`));
  } else if (chosen === null) {
    await list(body, date, day, Number(path[1]?.slice(1)) || 0, isLive);
  } else {
    await one(body, date, day, Math.min(chosen, day.transfers - 1), isLive);
  }
}

function days(all, date) {
  const at = all.indexOf(date);
  const step = (name, to) => el("button", {
    type: "button", ...(to === undefined ? { disabled: true } : {}),
    onclick: () => { location.hash = `#transfers/${to}`; },
  }, name);
  return el("div", { class: "controls" },
    el("div", { class: "group", role: "group", "aria-label": "Day" },
      step("← Day before", all[at - 1]),
      el("label", {}, "Day ", el("input", {
        type: "date", value: date, min: all[0], max: all.at(-1),
        onchange: (event) => {
          if (all.includes(event.target.value)) location.hash = `#transfers/${event.target.value}`;
        },
      })),
      step("Day after →", all[at + 1])));
}

async function chunk(date, day, number, isLive) {
  const found = await figures(`${date}/transfers-${number}.json`, { isLive });
  return found?.transfers ?? [];
}

async function list(body, date, day, page, isLive) {
  const pages = Math.ceil(day.transfers / PER_PAGE);
  const number = Math.min(page, pages - 1);
  const transfers = await chunk(date, day, number, isLive);
  const rows = transfers.map((transfer, at) => {
    const place = number * day.transfers_per_file + at;
    return [
      el("a", { href: `#transfers/${date}/${place}` }, transfer.id),
      utc(transfer.unix_ts_start).slice(11), transfer.nickname,
      sizeName(transfer.destination, transfer.size_bytes), outcome(transfer),
      seconds(transfer.steps.first_byte), seconds(transfer.steps.last_byte),
    ];
  });
  const turn = (name, to) => el("button", {
    type: "button", ...(to < 0 || to >= pages ? { disabled: true } : {}),
    onclick: () => { location.hash = `#transfers/${date}/p${to}`; },
  }, name);
  body.replaceChildren(card(`${count(day.transfers)} transfers of ${date}`,
    table(`Transfers of ${date}${pages > 1 ? `, page ${number + 1} of ${pages}` : ""}`, [
      "Transfer", "Start (UTC)", "Host", "What", "Outcome", ["First byte", "number"],
      ["Last byte", "number"]], rows),
    pages > 1 ? el("div", { class: "group" }, turn("← Page before", number - 1),
      turn("Next page →", number + 1)) : null));
}

function outcome(transfer) {
  if (transfer.outcome === "success") return el("span", { class: "badge good" }, "succeeded");
  if (transfer.outcome === "error") {
    return el("span", { class: "badge bad" }, `failed: ${transfer.error_code}`);
  }
  return el("span", { class: "badge warn" }, "had not ended");
}

async function one(body, date, day, place, isLive) {
  const size = day.transfers_per_file;
  const transfers = await chunk(date, day, Math.floor(place / size), isLive);
  const transfer = transfers[place % size];
  if (transfer === undefined) {
    body.replaceChildren(empty("This transfer is not here any more."));
    return;
  }
  const step = (name, to) => el("button", {
    type: "button", ...(to < 0 || to >= day.transfers ? { disabled: true } : {}),
    onclick: () => { location.hash = `#transfers/${date}/${to}`; },
  }, name);
  const facts = [
    ["Outcome", outcome(transfer)],
    ["Started (UTC)", utc(transfer.unix_ts_start)],
    [`What, on ${transfer.nickname}`, sizeName(transfer.destination, transfer.size_bytes)],
    ["First byte after", seconds(transfer.steps.first_byte)],
    ["Last byte after", seconds(transfer.steps.last_byte)],
    ["Ended after", seconds(transfer.seconds)],
  ];
  body.replaceChildren(
    el("div", { class: "group" },
      el("a", { href: `#transfers/${date}/p${Math.floor(place / PER_PAGE)}` }, `All of ${date}`),
      step("← Transfer before", place - 1), step("Transfer after →", place + 1)),
    el("h2", { class: "title" }, `Transfer ${transfer.id}`),
    el("dl", { class: "facts" }, facts.map(([name, value]) =>
      el("div", { class: "fact" }, el("dt", {}, name), el("dd", {}, value)))),
    waterfall(transfer),
    el("div", { class: "cards" }, circuit(transfer), connections(transfer), packets(transfer)));
}

// ---- the waterfall ------------------------------------------------------------------------------

function phaseRows(transfer) {
  let at = 0;
  const rows = [];
  for (const [name, [text, who]] of Object.entries(PHASES)) {
    const took = transfer.phases?.[name];
    if (took === undefined || name === "rest") continue;
    rows.push({ name, text, who, begin: at, end: at + took });
    at += took;
  }
  return rows;
}

// The phases lie one after the other; time that nobody stamped is put where it belongs, before
// the first phase whose end a step of the generator tells and that would end too early.
function placed(transfer) {
  const rows = phaseRows(transfer);
  const rest = transfer.phases?.rest ?? 0;
  if (!rest) return rows;
  const ends = { command: "command", response: "response", first_byte: "first_byte",
    payload: "last_byte", checksum: "checksum", request: "proxy_request", socks: "proxy_request",
    stream: "proxy_response", attach: "proxy_response" };
  const tolerance = 2e-6;
  let where = rows.findIndex(({ name, end }) =>
    transfer.steps[ends[name]] > end + tolerance);
  if (where < 0) where = rows.length;
  const begin = rows[where]?.begin ?? rows.at(-1)?.end ?? 0;
  for (const row of rows.slice(where)) {
    row.begin += rest;
    row.end += rest;
  }
  const [text, who] = PHASES.rest;
  rows.splice(where, 0, { name: "rest", text, who, begin, end: begin + rest });
  return rows;
}

function eventRows(transfer) {
  const rows = [];
  const mark = (lane, name, at) => {
    if (at !== undefined && Number.isFinite(at)) rows.push({ lane, name, at });
  };
  for (const [name, at] of transfer.stream?.events ?? []) mark("tor", `stream ${name.split(":")[1]}`, at);
  for (const [name, at] of transfer.circuit?.events ?? []) mark("tor", `circuit ${name.split(":")[1]}`, at);
  const kernel = transfer.connection?.steps ?? {};
  for (const [name, at] of Object.entries(kernel)) mark("kernel", name.replaceAll("_", " "), at);
  for (const [name, at] of Object.entries(transfer.server?.steps ?? {})) {
    mark("far end", name.replaceAll("_", " "), at);
  }
  for (const [part, at] of Object.entries(transfer.progress)) {
    mark("generator", `${Math.round(100 * Number(part))} % of the payload`, at);
  }
  return rows.sort((a, b) => a.at - b.at);
}

function waterfall(transfer) {
  const phases = placed(transfer);
  const events = eventRows(transfer);
  if (!phases.length && !events.length) {
    return card("Where the time went", empty("No phase is known: the transfer had not ended."));
  }
  const whole = transfer.seconds ?? Math.max(...events.map((event) => event.at), 0.001);
  const inside = events.filter(({ at }) => at >= -0.02 * whole && at <= 1.1 * whole);
  const before = events.length - inside.length;
  const panel = el("p", { class: "note", role: "status" },
    "Click a bar or a mark, or choose a row of the table, to see what it is.");
  const choose = (text) => { panel.textContent = text; };
  const bars = table("Phases, one after the other", [
    "Phase", "What", "Stamped by", ["From", "number"], ["Took", "number"], ["Share", "number"]],
  phases.map((row) => [
    el("button", { type: "button", class: "link", onclick: () => choose(told(row, whole)) }, row.name),
    row.text, el("span", {}, swatch(row.who), row.who), seconds(row.begin),
    seconds(row.end - row.begin), percent(row.end - row.begin, whole)]));
  const marks = table("Moments", ["Moment", "Seen by", ["At", "number"]],
    events.map((event) => [event.name, el("span", {}, swatch(event.lane), event.lane),
      seconds(event.at)]));
  return el("section", { class: "card", "aria-label": "Where the time went" },
    el("h2", {}, "Where the time went"),
    draw(transfer, phases, inside, whole, choose), panel,
    before ? el("p", { class: "note-small" },
      `${before} moments lie outside the figure (the circuit was built before); the table has them.`) : null,
    el("details", {}, el("summary", {}, "Phases as a table"), bars),
    el("details", {}, el("summary", {}, "Moments as a table"), marks));
}

function told(row, whole) {
  return `${row.name}: ${row.text}, ${seconds(row.end - row.begin)} `
    + `(${percent(row.end - row.begin, whole)}), from ${seconds(row.begin)} to ${seconds(row.end)}; `
    + `its end was stamped by ${row.who === "nobody" ? "nobody" : `the ${row.who}`}.`.replace("the tor", "tor");
}

function swatch(who) {
  return el("span", { class: "swatch", "aria-hidden": "true", style: { background: colour(LANES[who]) } });
}

function draw(transfer, phases, events, whole, choose) {
  const lanes = ["generator", "tor", "kernel", "far end"].filter((lane) =>
    events.some((event) => event.lane === lane));
  const factors = [...phases.map((row) => row.name), ...lanes.map((lane) => `• ${lane}`)].reverse();
  const longest = [...phases].sort((a, b) => (b.end - b.begin) - (a.end - a.begin))[0];
  return figure({
    title: "Phases one below the other, and what tor, the kernel and the far end saw meanwhile",
    description: `Waterfall of ${phases.length} phases over ${seconds(whole)}`
      + (longest ? `; the longest is ${longest.name} with ${seconds(longest.end - longest.begin)}` : "")
      + ". The tables below have all numbers.",
    height: 70 + 24 * factors.length, x: "seconds since the start", yRange: factors,
    xRange: { start: -0.02 * whole, end: 1.08 * whole },
  }, (plot, Bokeh) => {
    const bars = new Bokeh.ColumnDataSource({ data: {
      y: phases.map((row) => row.name), left: phases.map((row) => row.begin),
      right: phases.map((row) => Math.max(row.end, row.begin + whole / 600)),
      fill: phases.map((row) => colour(LANES[row.who])),
      text: phases.map((row) => told(row, whole)),
    } });
    const bar = plot.hbar({ field: "y" }, 0.72, { field: "right" }, { field: "left" }, {
      source: bars, fill_color: { field: "fill" }, line_color: null, fill_alpha: 0.9,
    });
    // Beside the bar, or in it where there is no room beside it.
    for (const isInside of [false, true]) {
      const rows = phases.filter((row) => (row.end > 0.75 * whole && row.end - row.begin > whole / 4) === isInside);
      const isLate = (row) => !isInside && row.end > 0.85 * whole;
      plot.text(rows.map((row) => (isLate(row) ? row.begin : row.end)), rows.map((row) => row.name),
        rows.map((row) => seconds(row.end - row.begin)), {
          x_offset: rows.map((row) => (isInside || isLate(row) ? -5 : 5)),
          text_align: rows.map((row) => (isInside || isLate(row) ? "right" : "left")),
          text_baseline: "middle", text_font_size: "11px", text_font: "system-ui, sans-serif",
          text_color: css(isInside ? "--paper" : "--muted"),
        });
    }
    const marks = new Bokeh.ColumnDataSource({ data: {
      x: events.map((event) => event.at), y: events.map((event) => `• ${event.lane}`),
      fill: events.map((event) => colour(LANES[event.lane])),
      text: events.map((event) => `${event.lane}: ${event.name} at ${seconds(event.at)}`),
    } });
    const mark = plot.scatter({ field: "x" }, { field: "y" }, {
      source: marks, marker: "diamond", size: 11, fill_color: { field: "fill" },
      line_color: css("--paper"),
    });
    onTap(Bokeh, plot, bars, (at) => choose(bars.data.text[at]));
    onTap(Bokeh, plot, marks, (at) => choose(marks.data.text[at]));
    plot.add_tools(hover(Bokeh, [["", "@text"]], { renderers: [bar, mark] }));
  });
}

// ---- beside it ----------------------------------------------------------------------------------

function circuit(transfer) {
  const found = transfer.circuit;
  if (!found) {
    const why = { ambiguous: "several streams of tor fit it", unmatched: "no stream of tor fits it",
      linked: "its stream was on no circuit that is known" }[transfer.links];
    return card("Circuit", empty(`No circuit is known: ${why ?? transfer.links}.`));
  }
  const path = found.path.length ? el("ol", { class: "path", "aria-label": "Path" },
    found.path.map((relay, at) => el("li", { title: relay.fingerprint },
      at ? el("span", { class: "arrow", "aria-hidden": "true" }, "→") : null,
      el("span", { class: "relay" }, relay.nickname || relay.fingerprint.slice(0, 8))))) : empty("It got to no relay.");
  return card(`Circuit ${found.id}`, path,
    found.buildtime_seconds !== undefined
      ? el("p", {}, `Built in ${seconds(found.buildtime_seconds)}`
        + (found.conflux_circuits ? `; one of the conflux set ${found.conflux_circuits.join(", ")}.` : ".")) : null,
    found.path.length ? table("Relays of the path", ["Relay", "Fingerprint", ["Reached after", "number"]],
      found.path.map((relay) => [relay.nickname || "(no name)", el("code", {}, relay.fingerprint),
        seconds(relay.seconds)])) : null);
}

function connections(transfer) {
  const row = (name, found) => [name, seconds(found.smoothed_rtt_seconds),
    seconds(found.minimum_rtt_seconds), count(found.retransmitted_segments),
    count(found.retransmission_timeouts), bytes(found.sent_bytes), bytes(found.received_bytes)];
  const rows = [];
  if (transfer.connection) rows.push(row("generator to tor", transfer.connection));
  (transfer.guards ?? []).forEach((guard, at) => rows.push(
    row(at ? `tor to first relay, ${at + 1}` : "tor to first relay", guard)));
  if (!rows.length) return card("Connections", empty("The kernel's connections were not recorded."));
  return card("Connections", table("As the kernel saw them while the transfer ran", [
    "Connection", ["RTT", "number"], ["Least RTT", "number"], ["Repeated", "number"],
    ["Timeouts", "number"], ["Sent", "number"], ["Received", "number"]], rows),
  el("p", { class: "note-small" },
    "The connection to the first relay is shared: other circuits are in its numbers, too."));
}

function packets(transfer) {
  const file = transfer.packets_file;
  const onDisk = transfer.packets?.count ?? 0;
  if (file) {
    return card("Packets", el("p", {},
      el("a", { href: file.name.split("/").map(encodeURIComponent).join("/"), download: "" },
        `packets (pcapng, ${count(file.count)} packets)`)));
  }
  if (!onDisk) return card("Packets", empty("None were recorded, or kept until it was published."));
  // Nothing that a shell would take for more than a name.
  const name = /^[\w:.#/-]+$/.test(transfer.id) ? transfer.id : "ID";
  return card("Packets",
    el("p", {}, `${count(onDisk)} packets, ${bytes(transfer.packets.bytes)}, were on the disk of the `
      + "measuring host when this was published. There, as long as they are kept:"),
    el("p", {}, el("code", {},
      `perfmeasure query --prefix DIR "transfer ${name}" -w packets.pcapng`)));
}
