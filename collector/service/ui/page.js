// Shows the JSON documents of the admin port. Everything from outside becomes text nodes, never markup.
"use strict";

const EVERY_MS = 2000;
const PATHS = ["/health", "/ledger", "/span_metrics", "/sampling", "/cardinality"];
const SVG = "http://www.w3.org/2000/svg";

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const count = (value) => (value == null ? "" : number.format(value).replaceAll(",", "\u202f"));
const percent = (share) => (share == null ? "" : `${(share * 100).toFixed(share > 0 && share < 0.0995 ? 2 : 1)} %`);
const duration = (ms) => (ms == null ? "" : ms >= 1000 ? `${(ms / 1000).toFixed(2)} s` : ms >= 10 ? `${ms.toFixed(0)} ms` : `${ms.toFixed(2)} ms`);

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children.filter((child) => child != null));
  return made;
}

// columns: [heading, row => text or node, is number?]
function table(rows, columns) {
  const head = element("tr", {}, ...columns.map(([name, , isNumber]) => element("th", { className: isNumber ? "number" : "", scope: "col" }, name)));
  const body = rows.map((row) => element("tr", {}, ...columns.map(([, cell, isNumber]) => element("td", { className: isNumber ? "number" : "" }, cell(row) ?? ""))));
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
}

function show(id, ...children) {
  const section = document.getElementById(id);
  section.hidden = children.length === 0;
  section.querySelector(".body").replaceChildren(...children);
}

const flagged = (text, isBad) => element("span", { className: isBad ? "bad" : "" }, text);
const entries = (found) => Object.entries(found.document ?? {}).sort(([a], [b]) => (a < b ? -1 : 1));
const local = (found) => (found.status === 403 ? [element("p", { className: "note" }, "This section is only shown to clients on the gateway's own host. Open the page there or through a tunnel.")] : []);

function health(found) {
  const pill = document.getElementById("health");
  if (!found.document) {
    pill.textContent = "not reachable";
    pill.className = "pill bad";
    return;
  }
  const { status, version, uptime_seconds: uptime, checks } = found.document;
  const failing = checks.filter((check) => !check.healthy);
  pill.textContent = status;
  pill.className = `pill ${failing.length ? "bad" : "good"}`;
  const facts = [`version ${version}`, `up ${uptime < 120 ? `${uptime.toFixed(0)} s` : `${(uptime / 60).toFixed(0)} min`}`];
  document.getElementById("facts").textContent = [...facts, ...failing.map((check) => `${check.name}: ${check.message}`)].join("  ·  ");
}

function services(found) {
  const rows = entries(found).flatMap(([, document]) => document.services ?? []);
  if (!rows.length) return show("services", ...local(found));
  return show(
    "services",
    table(rows, [
      ["service", (row) => row.service],
      ["calls", (row) => count(row.calls), true],
      ["per second", (row) => (row.rate_per_s == null ? "" : row.rate_per_s.toFixed(1)), true],
      ["errors", (row) => flagged(`${count(row.errors)}  (${percent(row.error_ratio)})`, row.errors > 0), true],
      ["p50", (row) => duration(row.p50_ms), true],
      ["p95", (row) => duration(row.p95_ms), true],
      ["p99", (row) => duration(row.p99_ms), true],
      ["busiest operations", (row) => (row.operations ?? []).slice(0, 3).map((operation) => `${operation.name} (${count(operation.calls)})`).join(", ")],
    ]),
  );
}

function lane(trace, span) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "bars");
  svg.setAttribute("viewBox", "0 0 1000 12");
  svg.setAttribute("preserveAspectRatio", "none");
  const total = Math.max(trace.duration_ms, ...trace.spans.map((other) => other.start_offset_ms + other.duration_ms), 0.001);
  const box = (kind, from, length) => {
    const rect = document.createElementNS(SVG, "rect");
    const x = Math.min(Math.max((from / total) * 1000, 0), 998);
    const sizes = { class: kind, x, y: 1, height: 10, width: Math.max(Math.min((length / total) * 1000, 1000 - x), 2) };
    for (const [name, value] of Object.entries(sizes)) rect.setAttribute(name, value);
    svg.append(rect);
  };
  box("lane-back", 0, total);
  const kind = span.status === "error" ? "bar error" : "gpu.source" in span.attributes ? "bar gpu" : "bar";
  box(kind, span.start_offset_ms, span.duration_ms);
  const queue = span.attributes["gen_ai.latency.time_in_queue"] ?? span.attributes.queue_time;
  if (typeof queue === "number") box("wait", span.start_offset_ms, Math.min(queue * 1000, span.duration_ms));
  return svg;
}

// Spans in tree order with their depth; spans without a parent in this trace are roots.
function ordered(spans) {
  const children = new Map();
  const ids = new Set(spans.map((span) => span.span_id));
  for (const span of spans) {
    const parent = ids.has(span.parent_span_id) && span.parent_span_id !== span.span_id ? span.parent_span_id : "";
    children.set(parent, [...(children.get(parent) ?? []), span]);
  }
  const lines = [];
  const seen = new Set();
  const stack = [...(children.get("") ?? [])].sort((a, b) => b.start_offset_ms - a.start_offset_ms).map((span) => [span, 0]);
  while (stack.length) {
    const [span, depth] = stack.pop();
    if (seen.has(span)) continue;
    seen.add(span);
    lines.push([span, depth]);
    const below = [...(children.get(span.span_id) ?? [])].sort((a, b) => b.start_offset_ms - a.start_offset_ms);
    stack.push(...below.map((child) => [child, depth + 1]));
  }
  return lines;
}

const NOTES = {
  "gpu.utilization.mean": (value) => `GPU ${percent(value)}`,
  "gpu.memory.used.max": (value) => `${(value / 2 ** 30).toFixed(1)} GiB`,
  "gpu.power.mean": (value) => `${value.toFixed(0)} W`,
  "gpu.device.energy": (value) => `${value.toFixed(1)} J`,
  "gen_ai.latency.time_in_queue": (value) => `queued ${duration(value * 1000)}`,
  queue_time: (value) => `queued ${duration(value * 1000)}`,
  "gen_ai.usage.input_tokens": (value) => `${count(value)} tokens`,
  tenant_id: (value) => String(value),
  "http.response.status_code": (value) => `HTTP ${value}`,
};

const notes = (span) =>
  Object.entries(NOTES)
    .filter(([key]) => typeof span.attributes[key] === "number" || (key === "tenant_id" && key in span.attributes))
    .map(([key, text]) => text(span.attributes[key]))
    .join("  ");

let opened = null;

function traces(found) {
  const rows = entries(found)
    .flatMap(([, document]) => document.slowest ?? [])
    .sort((a, b) => b.duration_ms - a.duration_ms)
    .slice(0, 5);
  if (!rows.length) return show("traces", ...local(found));
  opened ??= rows[0].trace_id;
  return show(
    "traces",
    ...rows.map((trace) => {
      const lines = ordered(trace.spans);
      const body = table(lines, [
        ["span", ([span, depth]) => element("span", {}, "\u2003".repeat(depth), span.name, " ", element("span", { className: "quiet" }, span.service))],
        ["", ([span]) => lane(trace, span)],
        ["", ([span]) => duration(span.duration_ms), true],
        ["", ([span]) => element("span", { className: span.status === "error" ? "bad note" : "note" }, span.status === "error" ? `error  ${notes(span)}` : notes(span))],
      ]);
      body.className = "spans";
      const title = element("summary", {}, `${duration(trace.duration_ms)}  ${trace.root_service}  ${trace.root_name}  `, element("span", { className: "quiet mono" }, `${trace.trace_id}  kept by ${trace.rule}`));
      const details = element("details", { open: trace.trace_id === opened }, title, body);
      details.addEventListener("toggle", () => {
        if (details.open) opened = trace.trace_id;
      });
      return details;
    }),
  );
}

function rules(found) {
  const rows = entries(found).flatMap(([id, document]) => (document.rules ?? []).map((rule) => ({ id, ...rule })));
  if (!rows.length) return show("rules", ...local(found));
  return show(
    "rules",
    table(rows, [
      ["processor", (row) => row.id],
      ["rule", (row) => row.name],
      ["traces", (row) => count(row.seen), true],
      ["kept", (row) => count(row.kept), true],
      ["dropped", (row) => count(row.dropped), true],
      ["rate", (row) => percent(row.rate), true],
    ]),
  );
}

function labels(found) {
  const found_labels = entries(found).flatMap(([, document]) => document.attributes ?? []).slice(0, 10);
  const metrics = entries(found).flatMap(([, document]) => document.metrics ?? []).slice(0, 10);
  if (!found_labels.length && !metrics.length) return show("labels", ...local(found));
  return show(
    "labels",
    table(found_labels, [
      ["metric", (row) => row.metric],
      ["attribute", (row) => row.attribute],
      ["values", (row) => count(row.values), true],
      ["examples", (row) => element("span", { className: "mono" }, (row.samples ?? []).join(", "))],
    ]),
    table(metrics, [
      ["metric", (row) => element("span", {}, row.metric, " ", element("span", { className: "quiet" }, Object.values(row.group ?? {}).join(" ")))],
      ["series", (row) => count(row.series), true],
      ["limit", (row) => (row.limit ? count(row.limit) : "none"), true],
      ["series received", (row) => count(row.demand), true],
      ["points folded", (row) => flagged(count(row.folded), row.folded > 0), true],
    ]),
  );
}

function ledger(found) {
  if (!found.document) return;
  const reasons = (counts) => Object.entries(counts).map(([reason, items]) => `${count(items)} ${reason}`).join(", ");
  const { balanced, nodes } = found.document;
  const closed = element("p", { className: balanced ? "good" : "bad" }, balanced ? "Balanced: every item is accounted for." : "Not balanced: some items are not accounted for.");
  show(
    "ledger",
    closed,
    table(nodes, [
      ["node", (row) => row.node],
      ["signal", (row) => row.signal],
      ["received", (row) => count(row.received), true],
      ["created", (row) => (row.created ? count(row.created) : ""), true],
      ["out", (row) => count(row.node.startsWith("exporters/") ? row.delivered : row.out), true],
      ["held", (row) => (row.held ? count(row.held) : ""), true],
      ["folded", (row) => (row.folded ? count(row.folded) : ""), true],
      ["dropped", (row) => reasons(row.dropped)],
      ["refused", (row) => flagged(reasons(row.rejected ? { ...row.refused, invalid: row.rejected } : row.refused), true)],
    ]),
  );
}

async function ask(path) {
  try {
    const response = await fetch(path, { headers: { Accept: "application/json" } });
    const isData = response.ok || path === "/health"; // a 503 contains the checks, too
    return { status: response.status, document: isData ? await response.json() : null };
  } catch {
    return { status: 0, document: null };
  }
}

async function refresh() {
  const [state, books, red, sampling, caps] = await Promise.all(PATHS.map(ask));
  health(state);
  services(red);
  traces(sampling);
  labels(caps);
  rules(sampling);
  ledger(books);
  const served = PATHS.filter((path, index) => index > 1 && [red, sampling, caps][index - 2].document);
  document.getElementById("routes").replaceChildren(...served.map((path) => element("a", { href: path }, path)));
  setTimeout(refresh, EVERY_MS);
}

refresh();
