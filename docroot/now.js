// Now: what runs, since when, how well. status.json is asked for while this view is looked at.

import { figures, load } from "./data.js";
import { bytes, card, count, dateOf, el, empty, percent, seconds, table, utc } from "./dom.js";
import { keysOf, legend, overTime } from "./curves.js";

const POLL_MS = 2000;
const SILENT_SECONDS = 20;  // measure writes every 2 s; a busy machine may take longer
const FIGURES_MS = 5000;

let timer = null;
let place = null;
let drawnOf = "";
let figuresAt = 0;

export async function show(section) {
  leave();
  place = {
    told: el("p", { class: "state idle", role: "status" }), state: el("div", {}),
    latest: el("div", {}),
  };
  section.replaceChildren(place.told, place.state, place.latest);
  drawnOf = "";
  figuresAt = 0;
  await poll();
  document.addEventListener("visibilitychange", poll);
}

export function leave() {
  clearTimeout(timer);
  document.removeEventListener("visibilitychange", poll);
  place = null;
}

async function poll() {
  clearTimeout(timer);
  const own = place;
  if (own === null || document.hidden) return;
  try {
    const found = await load("status.json");
    if (own !== place) return;
    draw(found);
    if (Date.now() - figuresAt > FIGURES_MS) {
      figuresAt = Date.now();
      await drawLatest();
    }
  } catch (error) {
    if (own !== place) return;
    tell("bad", "No answer", `The server does not answer (${error.message}). Trying again.`);
  }
  if (own === place) timer = setTimeout(poll, POLL_MS);
}

// Said anew only if it is new: a screen reader reads it out.
function tell(kind, word, text) {
  if (place.told.textContent === `${word} ${text}`) return;
  place.told.className = `state ${kind}`;
  place.told.replaceChildren(el("strong", {}, word), ` ${text}`);
}

function draw(found) {
  if (found === null || found.document.state === "none") {
    place.state.replaceChildren();
    tell("idle", "No measurement", "has told its state here. What was published is in Results.");
    return;
  }
  const { document: status, date } = found;
  const serverTs = date / 1000;
  const focused = place.state.contains(document.activeElement)
    ? document.activeElement.getAttribute("aria-label") : null;
  place.state.replaceChildren(summary(status, serverTs), el("div", { class: "cards" },
    childrenCard(status, serverTs), sourcesCard(status, serverTs), kindsCard(status),
    warningsCard(status)));
  if (focused !== null) {
    [...place.state.querySelectorAll("[tabindex]")].find((one) =>
      one.getAttribute("aria-label") === focused)?.focus({ preventScroll: true });
  }
  const of = `${status.program} on ${status.nickname}`;
  const broken = status.children.filter((child) => !child.is_running).map((child) => child.name);
  if (status.state === "ended") {
    tell("idle", "Ended", `${of}, at ${utc(status.unix_ts)}.`);
  } else if (serverTs - status.unix_ts > SILENT_SECONDS) {
    tell("bad", "Silent", `${of} has said nothing since ${utc(status.unix_ts)}: `
      + "it may have been killed.");
  } else if (broken.length) {
    tell("warn", "Running", `${of}, without ${broken.join(", ")}.`);
  } else {
    tell("good", "Running", `${of}.`);
  }
}

function ago(serverTs, unixTs) {
  const passed = serverTs - unixTs;
  return passed < 2 ? "just now" : `${seconds(passed)} ago`;
}

function fact(name, value, note) {
  return el("div", { class: "fact" }, el("dt", {}, name), el("dd", {}, value,
    note ? el("span", { class: "note-small" }, note) : null));
}

function summary(status, serverTs) {
  const kinds = Object.entries(status.transfers);
  const total = (key) => kinds.reduce((sum, [, kind]) => sum + kind[key], 0);
  const done = total("succeeded") + total("failed");
  const wanted = total("wanted");
  const facts = el("dl", { class: "facts" },
    fact(status.state === "ended" ? "Ran for" : "Runs for",
      seconds(Math.max(0, status.unix_ts - status.started_unix_ts)),
      `since ${utc(status.started_unix_ts, false)}`),
    fact("Network", status.network === "testnet" ? "private" : "public", "Tor"),
    fact("Transfers done", count(done) + (wanted ? ` of ${count(wanted)}` : ""),
      `of ${bytes(status.transfer_size_bytes)} each`),
    fact("Succeeded", percent(total("succeeded"), done), `${count(total("failed"))} failed`),
    fact("Last transfer", status.last_transfer_unix_ts === undefined ? "none yet"
      : ago(serverTs, status.last_transfer_unix_ts)),
    status.disk ? fact("Disk", `${bytes(status.disk.free_bytes)} free`,
      `${percent(status.disk.free_bytes, status.disk.total_bytes)} of ${bytes(status.disk.total_bytes)}`)
      : null);
  const doing = status.phases.length
    ? el("ul", { class: "doing" }, status.phases.map((line) => el("li", {}, line))) : null;
  return el("div", {}, facts, doing);
}

function kindsCard(status) {
  const kinds = Object.entries(status.transfers);
  return card("Transfers", table("Transfers since it began, by destination",
    ["Destination", ["Succeeded", "number"], ["Failed", "number"], ["Wanted", "number"]],
    kinds.map(([name, kind]) => [name, count(kind.succeeded), count(kind.failed),
      kind.wanted ? count(kind.wanted) : "no end"])));
}

function childrenCard(status, serverTs) {
  if (!status.children.length) {
    return card("Programs", empty(status.state === "ended" ? "All have ended." : "None runs yet."));
  }
  const relays = status.children.filter((child) => child.name.startsWith("tor-relay "));
  const others = status.children.filter((child) => !relays.includes(child));
  const rows = others.map((child) => [child.name, badge(child),
    child.started_unix_ts ? seconds(Math.max(0, serverTs - child.started_unix_ts)) : "–",
    count(child.restarts)]);
  const alive = relays.filter((child) => child.is_running).length;
  if (relays.length) {
    rows.push([`${relays.length} relays`, badge({ is_running: alive === relays.length },
      `${alive} run`), "", count(relays.reduce((sum, child) => sum + child.restarts, 0))]);
  }
  return card("Programs", table("Programs of the measurement",
    ["Program", "State", ["Runs for", "number"], ["Restarts", "number"]], rows));
}

function badge(child, text) {
  if (!child.is_running) return el("span", { class: "badge bad" }, text ?? "not running");
  const isIdle = child.idle_seconds !== undefined
    && child.idle_seconds > 0.7 * child.idle_limit_seconds;
  if (isIdle) return el("span", { class: "badge warn" }, `no work for ${seconds(child.idle_seconds)}`);
  return el("span", { class: "badge good" }, text ?? "running");
}

function sourcesCard(status, serverTs) {
  if (!status.sources.length) return card("Sources", empty("Nothing has been written yet."));
  return card("Sources", table("Logs that are being written",
    ["Log", ["Size", "number"], "Last written"],
    status.sources.map((source) => [source.name, bytes(source.size_bytes), source.absent
      ? el("span", {}, el("span", { class: "badge warn" }, "absent"), ` ${source.absent}`)
      : ago(serverTs, source.written_unix_ts)])));
}

function warningsCard(status) {
  if (!status.warnings.length) return card("Last errors", empty("None. All is well."));
  return card("Last errors", el("ol", { class: "warnings" }, [...status.warnings].reverse().map(
    (warning) => el("li", {}, el("time", {}, utc(warning.unix_ts)), " ", warning.text))));
}

async function drawLatest() {
  const own = place;
  const index = await figures("index.json", { isLive: true });
  if (own !== place) return;
  if (index === null || !index.days.length) {
    place.latest.replaceChildren(card("Latest day", empty("No transfer has been published yet. "
      + "The first figures come some seconds after the first transfers.")));
    return;
  }
  const date = index.days.at(-1);
  const day = await figures(`${date}/day.json`, { isLive: true });
  if (own !== place || day === null) return;
  const stamp = JSON.stringify(day.nicknames).length + date;
  if (stamp === drawnOf) return;
  drawnOf = stamp;
  const keys = keysOf([day.nicknames]);
  const figure = overTime(new Map([[date, day]]), "ttlb", {
    keys,
    title: `Time to last byte, ${date}${date === dateOf(Date.now() / 1000) ? " (today)" : ""}`,
  });
  place.latest.replaceChildren(el("section", { class: "card", "aria-label": "Latest day" },
    el("h2", {}, "Latest day"), figure, legend(keys),
    el("p", {}, el("a", { href: `#results?from=${date}&to=${date}` }, "All results of this day"),
      " · ", el("a", { href: `#transfers/${date}` }, "its transfers, one by one"))));
}
