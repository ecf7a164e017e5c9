// Shows the view that the address names, and keeps it up to date.

import { el } from "./dom.js";
import * as files from "./files.js";
import * as now from "./now.js";
import * as results from "./results.js";
import * as topology from "./topology.js";
import * as transfers from "./transfers.js";

const views = { now, results, transfers, topology, files };
const titles = {
  now: "Now", results: "Results", transfers: "Transfers", topology: "Topology", files: "Files",
};
const problem = document.getElementById("problem");
let current = null;

function decoded(text) {
  try {
    return decodeURI(text);
  } catch {
    return "";  // a % without its digits
  }
}

function route() {
  const [name, ...rest] = decoded(location.hash.slice(1)).split("?");
  const [view, ...path] = name.split("/");
  return { view: view in views ? view : "now", path, query: new URLSearchParams(rest.join("?")) };
}

function report(error) {
  problem.textContent = `This could not be shown: ${error.message}`;
  problem.hidden = false;
  throw error;
}

async function show(isMoved) {
  if (location.hash === "#main") return;
  const { view, path, query } = route();
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  for (const name of Object.keys(views)) {
    const section = document.getElementById(name);
    section.hidden = name !== view;
    section.classList.toggle("shown", name === view);
  }
  document.getElementById("title").textContent = titles[view];
  document.title = `${titles[view]} – perfmeasure`;
  document.querySelector(".lead").hidden = view !== "now" && view !== "files";
  problem.hidden = true;
  if (current !== null && current !== view) views[current].leave?.();
  current = view;
  if (isMoved) document.getElementById("main").focus({ preventScroll: true });
  await views[view].show(document.getElementById(view), path, query);
}

function theme() {
  const asked = localStorage.getItem("theme");
  const isDark = asked ? asked === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = isDark ? "dark" : "light";
  const button = document.getElementById("theme");
  button.replaceChildren(el("span", { "aria-hidden": "true" }, isDark ? "☀" : "☾"));
  button.setAttribute("aria-label", isDark ? "Use light colours" : "Use dark colours");
}

document.getElementById("theme").addEventListener("click", () => {
  const isDark = document.documentElement.dataset.theme === "dark";
  localStorage.setItem("theme", isDark ? "light" : "dark");
  theme();
  show(false).catch(report);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  theme();
  show(false).catch(report);
});
addEventListener("hashchange", () => show(true).catch(report));
theme();
show(false).catch(report);
