// Requests data from statusd every few seconds and shows it. The master's texts are inserted as
// text, never as markup.
"use strict";

// Maximum number of children that are shown for a service.
const CHILDREN_MAX = 200;
// Timeout of a request, in milliseconds.
const PATIENCE = 10000;
const SVG = "http://www.w3.org/2000/svg";
// Marks of a sample in the history.
const FULL = 1, THROTTLED = 2, STRESSED = 4;

const byId = (id) => document.getElementById(id);
const rows = new Map(); // by key, each with the elements of a service
const past = new Map(); // by key, the history: {busy, marks}
let known = 0; // the number of samples of the history that this page has
let kept = 300;
let latest = null; // the latest document

// ---- words

const plural = (count, what) => `${number(count)} ${what}${count === 1 ? "" : "s"}`;
const number = (value) => value.toLocaleString("en");
const key = (service) => `${service.endpoint} ${service.type}`;
const title = (service) => `${service.name}/${service.type}`;

// A duration in at most two units.
function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 100) return `${s} s`;
  if (s < 6000) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

// The Swedish format is 2026-11-21 17:05:38, which is unambiguous.
const moment = (seconds) => new Date(seconds * 1000).toLocaleString("sv-SE");

// ---- elements

function element(name, attributes = {}, ...inside) {
  const made = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  made.append(...inside);
  return made;
}

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  return made;
}

// Sets a text only if it differs, so that a screen reader does not repeat it.
function say(where, text) {
  if (where.textContent !== text) where.textContent = text;
}

function facts(where, pairs) {
  where.replaceChildren(...pairs.filter(([, value]) => value !== null).map(([term, value]) =>
    element("div", {}, element("dt", {}, term), element("dd", {}, value))));
}

// ---- the state of a service

// The meaning of each problem, and the advice.
const ADVICE = {
  throttled: "Children have failed; the log says why. None is started until the throttle time is over.",
  full: "All processes that maxproc allows are busy, and further clients wait. To allow more, raise maxproc in "
    + "the table, check with masterctl plan, and run masterctl reload.",
  stressed: "The limit was reached a short while ago: children are told of stress (-o stress=yes).",
  loading: "Its template loads the program: no child can be forked before. The log says so when one could not.",
  paused: "An operator has paused it: clients wait until masterctl resume.",
  near: "Nearly all processes that maxproc allows are busy.",
};

const TAKERS = {
  shared: "whichever child comes first (shared)",
  ordered: "the child that the master chooses (ordered)",
};

// The problems of a service, the worst first; each has a class, words, and a rank.
function troubles(service, now) {
  const found = [];
  if (service.throttled_until !== null) {
    found.push(["throttled", `throttled, ${span(service.throttled_until - now)} left`, 4]);
  }
  if (isFull(service)) found.push(["full", "at its limit", 3]);
  if (service.stress_until !== null) {
    found.push(["stressed", `stress, ${span(service.stress_until - now)} left`, 2]);
  }
  if (service.paused) found.push(["paused", "paused", 2]);
  if (isLoading(service)) found.push(["loading", "loading", 1]);
  if (!isFull(service) && service.maximum > 1 && service.busy >= 0.8 * service.maximum) {
    found.push(["near", "near its limit", 1]);
  }
  return found;
}

const isFull = (service) => service.maximum > 1
  ? service.busy >= service.maximum
  // With a limit of one, a busy process is normal; it is a problem only if clients wait.
  : service.maximum === 1 && service.busy === 1 && service.backlog > 0;

const templates = (service) => service.templates ?? [];

const isLoading = (service) => service.settings?.preload === "true"
  && (templates(service)[0]?.state ?? "loading") === "loading";

const badness = (service, now) => Math.max(0, ...troubles(service, now).map(([, , bad]) => bad));

function summary({ services, time: now, last_reload: reload }) {
  const groups = [["throttled", "throttled"], ["full", "at the limit"], ["stressed", "in stress mode"],
    ["paused", "paused"]];
  const parts = groups.map(([kind, words]) => {
    const these = services.filter((service) => troubles(service, now).some(([k]) => k === kind));
    if (these.length === 0) return null;
    const names = these.slice(0, 3).map(title).join(", ");
    const more = these.length > 3 ? ` and ${these.length - 3} more` : "";
    return `${these.length} ${words}: ${names}${more}.`;
  }).filter((part) => part !== null);
  if (reload !== null && !reload.succeeded) parts.push("The last reload failed.");
  const all = `${plural(services.length, "service")}`;
  return parts.length === 0 ? `${all}, all well.` : `${all}. ${parts.join(" ")}`;
}

// ---- a service's rows

function makeRow(service) {
  const id = `details-${rows.size}`;
  const button = element("button", { type: "button", "aria-expanded": "false", "aria-controls": id });
  const name = element("span", { class: "name" });
  const endpoint = element("span", { class: "endpoint" });
  button.append(element("span", {}, name, endpoint));
  const badges = element("td", { role: "cell", class: "state" }, element("div", { class: "badges" }));
  const numbers = element("span");
  const bar = element("div", { class: "bar", "aria-hidden": "true" },
    element("div", { class: "busy" }), element("div", { class: "available" }));
  const children = element("td", { role: "cell", class: "children" }, numbers, bar);
  const history = element("td", { role: "cell", class: "past" });
  const clients = element("td", { role: "cell", class: "number", "data-label": "clients" });
  const waiting = element("td", { role: "cell", class: "number", "data-label": "waiting" });
  const main = element("tr", { role: "row" },
    element("th", { scope: "row", role: "rowheader" }, button), badges, children, history, clients,
    waiting);
  const inside = element("td", { role: "cell", colspan: "6" });
  const details = element("tr", { role: "row", class: "details", id, hidden: "" }, inside);
  const body = element("tbody", { role: "rowgroup" }, main, details);
  const row = { body, main, button, name, endpoint, badges: badges.firstChild, numbers, bar, children,
    history, clients, waiting, details, inside, service };
  button.addEventListener("click", () => open(row, details.hidden));
  // A link to the page may name its service.
  const fragment = location.hash.slice(1);
  if ([title(service), encodeURIComponent(title(service))].includes(fragment)) open(row, true);
  return row;
}

function open(row, opened) {
  row.details.hidden = !opened;
  row.button.setAttribute("aria-expanded", String(opened));
  if (opened) showDetails(row);
}

function showRow(row, service, now) {
  row.service = service;
  say(row.name, title(service));
  say(row.endpoint, service.endpoint === service.name ? "" : service.endpoint);
  const found = troubles(service, now);
  const badges = found.length > 0 ? found : [["well", service.total > 0 ? "well" : "no children", 0]];
  row.badges.replaceChildren(...badges.map(([kind, words]) =>
    element("span", { class: `badge ${kind}`, title: ADVICE[kind] ?? "" }, words)));
  const bad = badness(service, now);
  row.main.classList.toggle("bad", bad >= 4);
  row.main.classList.toggle("trouble", bad === 3 || bad === 2);
  showChildren(row, service);
  showPast(row, service);
  say(row.clients, number(service.connections));
  say(row.waiting, service.backlog === null ? "?" : number(service.backlog));
  if (!row.details.hidden) showDetails(row);
}

function showChildren(row, service) {
  const limit = service.maximum > 0 ? `limit ${number(service.maximum)}` : "no limit";
  const starting = service.starting > 0 ? `, ${number(service.starting)} starting` : "";
  say(row.numbers, `${number(service.busy)} busy, ${number(service.available)} idle${starting}; ${limit}`);
  // Without a limit, the scale is the maximum so far.
  const whole = service.maximum || Math.max(service.total, service.peak, 1);
  const share = (count) => `${Math.min(100, (100 * count) / whole)}%`;
  row.bar.classList.toggle("unlimited", service.maximum === 0);
  row.children.classList.toggle("full", isFull(service));
  row.bar.children[0].style.width = share(service.busy);
  row.bar.children[1].style.width = share(service.available);
}

// The curve of busy children; unknown values are gaps.
function showPast(row, service) {
  const { busy = [], marks = [] } = past.get(key(service)) ?? {};
  const some = busy.filter((value) => value !== null);
  const most = Math.max(0, ...some);
  // The limit is drawn if it is within the scale.
  const inSight = service.maximum > 0 && most >= service.maximum / 2;
  const top = Math.max(1, inSight ? service.maximum : most) * 1.1;
  const svg = shape("svg", { viewBox: `0 0 ${kept} 36`, preserveAspectRatio: "none", role: "img" });
  const words = pastInWords(some, marks);
  svg.setAttribute("aria-label", words);
  svg.append(shape("title", {}));
  svg.firstChild.textContent = words;
  const first = kept - busy.length;
  const y = (value) => (34 - (32 * value) / top).toFixed(1);
  for (const [from, to] of runs(busy, (value) => value !== null)) {
    const points = busy.slice(from, to)
      .map((value, i) => `${first + from + i} ${y(value)}H${first + from + i + 1}`);
    const curve = `M${points.join("L")}`;
    svg.append(
      shape("path", { class: "area", d: `${curve}V36H${first + from}Z` }),
      shape("path", { class: "curve", d: curve }));
  }
  if (inSight) {
    svg.append(shape("line", { class: "limit", x1: 0, x2: kept, y1: y(service.maximum), y2: y(service.maximum) }));
  }
  // Each mark has its own position, for colour-blind users; stress is dotted.
  for (const [mark, name, at] of [[FULL, "full", 1.5], [STRESSED, "stressed", 30], [THROTTLED, "throttled", 34.5]]) {
    for (const [from, to] of runs(marks, (value) => (value & mark) !== 0)) {
      svg.append(shape("line", { class: name, x1: first + from, x2: first + to, y1: at, y2: at }));
    }
  }
  row.history.replaceChildren(svg);
}

// The ranges of a list for which a condition holds: [from, to).
function runs(list, holds) {
  const found = [];
  list.forEach((value, i) => {
    if (!holds(value)) return;
    if (i > 0 && holds(list[i - 1])) found[found.length - 1][1] = i + 1;
    else found.push([i, i + 1]);
  });
  return found;
}

function pastInWords(busy, marks) {
  if (busy.length === 0) return "nothing is known yet";
  const share = (mark) => Math.ceil((100 * marks.filter((value) => value & mark).length) / marks.length);
  const words = [`between ${number(Math.min(...busy))} and ${number(Math.max(...busy))} busy`];
  for (const [mark, what] of [[FULL, "at the limit"], [THROTTLED, "throttled"], [STRESSED, "in stress mode"]]) {
    if (share(mark) > 0) words.push(`${what} for ${share(mark)} % of the time`);
  }
  return words.join(", ");
}

function showDetails(row) {
  const service = row.service;
  const now = latest.time;
  const list = element("dl");
  facts(list, [
    ["Program", [service.program, ...service.arguments].join(" ")],
    ["Listens at", service.listeners.join(", ")],
    ["Clients are taken by", TAKERS[service.accept] ?? service.accept],
    ["Most busy", service.peak_time === null ? null
      : `${number(service.peak)}, ${span(now - service.peak_time)} ago`],
    ["Limit reached", plural(service.limit_reached, "time")],
    // A field that an older master does not send is undefined, which is handled like null.
    ["Next throttled for", service.throttle_next == null ? null : span(service.throttle_next)],
    ["Ended abnormally", service.recent_clients == null ? null
      : `the child of ${number(service.recent_crashes)} of the last ${plural(service.recent_clients, "client")}`],
    ["Next wake-up", service.wakeup_next === null ? null : `in ${span(service.wakeup_next - now)}`],
    ["Children started", `${number(service.started)}, of which ${number(service.ended)} ended well, `
      + `${number(service.failed)} failed, ${number(service.killed)} were killed`],
    // Without a control group, or from an older master, there are none.
    ["Memory in use", service.memory == null ? null : `${number(Math.round(service.memory / 1024))} KB`],
    ["Processor time", service.processor_time == null ? null : span(service.processor_time)],
    ["Can wait at a listener", number(service.backlog_limit)],
    ...templates(service).map((of, i) => [i === 0 ? "Template" : "Next template", templateInWords(of, now)]),
    ["Templates that failed", service.template_failure == null ? null
      : `${number(service.template_failures)}, the last ${span(now - service.template_failure.time)} ago: `
        + service.template_failure.reason],
  ]);
  const advice = troubles(service, now).map(([kind, words]) =>
    element("li", {}, element("strong", {}, words), `: ${ADVICE[kind]}`));
  row.inside.replaceChildren(element("ul", { class: "advice" }, ...advice), list, childrenTable(service));
}

function templateInWords(template, now) {
  const due = template.due == null ? ""
    : template.due > now ? `, to be replaced in ${span(template.due - now)}`
    : `, to be replaced since ${span(now - template.due)}`;
  const megabytes = (bytes) => `${number(Math.round(bytes / 1e6))} MB`;
  const memory = template.private == null ? ""
    : `; memory ${megabytes(template.shared)} shared, ${megabytes(template.private)} private`;
  return `process ${template.pid}, ${template.state}, ${span(template.age)} old, `
    + `has forked ${number(template.forked)} ${template.forked === 1 ? "child" : "children"}${due}${memory}`;
}

function childrenTable(service) {
  if (service.children.length === 0) {
    const then = service.listening ? ": one is started when a client comes." : ".";
    return element("p", { class: "faint" }, `No children${then}`);
  }
  const head = ["Process", "State", "Clients", "Age", "Generation"];
  const state = (child) => child.state === "available" ? "idle" : child.state;
  const cells = (child) => [child.pid, state(child), number(child.uses), span(child.age), child.generation];
  const rows = service.children.slice(0, CHILDREN_MAX).map((child) =>
    element("tr", {}, ...cells(child).map((text) => element("td", {}, String(text)))));
  const table = element("table", { "aria-label": `Children of ${title(service)}` },
    element("thead", {}, element("tr", {}, ...head.map((text) => element("th", { scope: "col" }, text)))),
    element("tbody", {}, ...rows));
  const more = service.children.length - rows.length;
  return more > 0 ? element("div", {}, table, element("p", {}, `and ${number(more)} more`)) : table;
}

// ---- the page

// The services that match the filter, in the chosen order.
function chosen(services, now) {
  const words = byId("filter").value.toLowerCase().split(/\s+/);
  const text = (service) => [title(service), service.endpoint, service.program,
    ...troubles(service, now).map(([, shown]) => shown)].join(" ").toLowerCase();
  const found = services.filter((service) => words.every((word) => text(service).includes(word)));
  const orders = {
    table: () => 0,
    trouble: (a, b) => badness(b, now) - badness(a, now),
    busy: (a, b) => b.busy - a.busy,
    name: (a, b) => a.name.localeCompare(b.name),
  };
  return found.sort(orders[byId("order").value]);
}

function showServices(services, now) {
  const there = new Set(services.map(key));
  for (const [name, row] of rows) {
    if (there.has(name)) continue;
    row.body.remove();
    rows.delete(name);
  }
  const table = byId("services");
  const focus = document.activeElement;
  let place = table.tHead;
  const shown = new Set();
  for (const service of chosen(services, now)) {
    if (!rows.has(key(service))) rows.set(key(service), makeRow(service));
    const row = rows.get(key(service));
    if (place.nextElementSibling !== row.body) place.after(row.body);
    place = row.body;
    shown.add(key(service));
    showRow(row, service, now);
  }
  for (const [name, row] of rows) {
    if (!shown.has(name)) row.body.remove();
  }
  // A moved row keeps the focus.
  if (focus !== document.activeElement && focus.isConnected) focus.focus({ preventScroll: true });
}

function showMaster(master) {
  say(byId("place"), master.configuration);
  const upgrade = master.last_upgrade ?? null;
  const upgrades = upgrade === null ? [] : [["Upgrades",
    `${number(master.upgrades)}, the last ${moment(upgrade.time)} from ${upgrade.from}`]];
  facts(byId("facts"), [
    ["Version", master.version],
    ...upgrades,
    ["Process", String(master.pid)],
    ["Runs for", span(master.time - master.started)],
    ["Configuration", `no. ${number(master.generation)}, loaded ${moment(master.loaded)}`],
  ]);
  const reload = master.last_reload;
  const told = reload !== null && (!reload.succeeded || reload.findings.length > 0);
  byId("reload").hidden = !told;
  if (!told) return;
  byId("reload").classList.toggle("failed", !reload.succeeded);
  const result = reload.succeeded ? "succeeded, with warnings" : "failed: nothing was changed";
  say(byId("reload-title"), `The last reload (${moment(reload.time)}) ${result}`);
  byId("findings").replaceChildren(...reload.findings.map((line) => element("li", {}, line)));
}

function show() {
  if (latest === null) return;
  showMaster(latest);
  const text = summary(latest);
  say(byId("summary"), text);
  document.title = text.endsWith("all well.") ? "master: all well" : `master: ${text}`.slice(0, 80);
  showServices(latest.services, latest.time);
}

function showProblem(text) {
  byId("problem").hidden = text === null;
  say(byId("problem"), text ?? "");
  document.body.classList.toggle("stale", text !== null);
  if (text === null) return;
  document.title = "master: no answer";
  say(byId("summary"), latest === null ? "Nothing is known." : "This is how it was:");
}

// Stores the new samples of the history. A new statusd process does not have the samples of this
// page, so its samples are appended to them.
function remember(history) {
  kept = history.kept;
  // Samples that come once more: those of a page that was away, or of another statusd.
  const again = Math.max(0, known - history.since);
  known = history.taken;
  const seen = new Set();
  for (const news of history.services) {
    const { busy, marks } = past.get(key(news)) ?? { busy: [], marks: [] };
    const join = (old, more) => [...old.slice(0, Math.max(0, old.length - again)), ...more].slice(-kept);
    past.set(key(news), { busy: join(busy, news.busy), marks: join(marks, news.marks) });
    seen.add(key(news));
  }
  for (const name of past.keys()) {
    if (!seen.has(name)) past.delete(name);
  }
}

async function ask() {
  const response = await fetch(`view.json?since=${known}`, { signal: AbortSignal.timeout(PATIENCE) });
  if (!response.ok) throw new Error(`statusd says ${response.status}`);
  return response.json();
}

async function go() {
  let pause = 2;
  try {
    const view = await ask();
    pause = view.interval;
    remember(view.history);
    latest = view.document;
    show();
    const since = view.age === null ? "" : ` What is below is ${span(view.age)} old.`;
    showProblem(view.problem === null ? null : `The master does not answer: ${view.problem}.${since}`);
  } catch (error) {
    showProblem(`statusd does not answer (${error.message}). What is below is old.`);
  }
  setTimeout(go, 1000 * pause);
}

byId("choice").addEventListener("input", show);
byId("choice").addEventListener("submit", (event) => event.preventDefault());
go();
