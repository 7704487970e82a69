// What came of a job, as the visitor sees it.

import { byId, h, icon } from "./dom.js";
import { bytes, node, seconds, value } from "./format.js";
import { isJson, readable } from "./outcome.js";
import { addressOf, blobOf, decode } from "./pictures.js";
import { makeViewer } from "./viewer.js";

const HEADINGS = {
  completed: "Done",
  blocked: "Blocked by a safety gate",
  failed: "Failed",
  cancelled: "Cancelled",
  timed_out: "Out of time",
};
const CAPTIONS = /florence|caption/i; // nodes that describe a picture in words
const SIGNS = { completed: "check", blocked: "stop", failed: "cross", cancelled: "cross", timed_out: "cross" };

/**
 * Show an outcome (see outcome.js).
 *
 * @param {import("./outcome.js").Outcome} outcome
 * @param {import("./workflows.js").Workflow} workflow  what was run.
 * @param {{title: string, decoded: Object}[]} befores  the pictures that went in.
 * @param {import("./pictures.js").Urls} urls  gets the addresses of all files that are shown.
 */
export async function showOutcome(outcome, workflow, befores, urls) {
  const pictures = await Promise.all(outcome.pictures.map((item) => lookAt(item, workflow, urls)));
  byId("result").replaceChildren(...[
    headline(outcome),
    standIn(outcome),
    ...warnings(outcome).map((text) => banner("warn", text)),
    gallery(pictures, befores),
    safety(outcome, workflow),
    ...plainTexts(outcome).map((item) => textCard(item, workflow, captionOf(outcome))),
    downloads(outcome, pictures, urls),
    times(outcome),
    changes(outcome),
    models(outcome),
  ].filter(Boolean));
}

/** Show that a job could not be handed over or followed. */
export function showRefusal({ message, remedy, details = "" }) {
  byId("result").replaceChildren(verdict("failed", "Not run", [
    h("p", { class: "message" }, message),
    remedy ? h("p", {}, h("strong", {}, "What to do: "), remedy) : null,
    traceback(details),
  ]));
}

async function lookAt(item, workflow, urls) {
  const blob = blobOf(item);
  const url = blob && urls.of(blob);
  const decoded = blob && (await decode(url));
  const title = workflow.titles.get(String(item.node_id)) ?? item.class_type;
  return { item, url, decoded, label: decoded?.grey ? `${title} (mask)` : title };
}

function headline(outcome) {
  const { status, errors, executionSeconds, queueSeconds } = outcome;
  const spent = h("p", { class: "dim numbers" }, `ran ${seconds(executionSeconds)} · waited ${seconds(queueSeconds)}`);
  if (status === "completed") return verdict(status, HEADINGS.completed, [], spent);
  const listed = errors.length > 0 ? errors : [{ message: outcome.message }];
  if (status === "blocked") {
    return verdict(status, HEADINGS.blocked, [
      ...listed.map((error) => [h("p", { class: "message" }, error.message), where(error)]),
      h("p", { class: "dim" }, "The workflow did what it should: its gate stopped the content. No picture leaves the worker."),
    ], spent);
  }
  return verdict(status, HEADINGS[status], listed.map((error) => [
    h("p", { class: "message" }, error.message),
    where(error),
    error.remedy ? h("p", {}, h("strong", {}, "What to do: "), error.remedy) : null,
    traceback(error.details),
  ]), spent);
}

function verdict(status, heading, content, side = null) {
  return h("div", { class: `card verdict ${status}`, role: status === "failed" ? "alert" : null },
    h("div", { class: "row spread" }, h("h3", {}, icon(SIGNS[status]), heading), side), content);
}

const where = (error) => (error.node_id || error.class_type ? h("p", { class: "dim" }, node(error.class_type, error.node_id)) : null);

const traceback = (text) => (text ? h("details", {}, h("summary", {}, "Details"), h("pre", { tabindex: 0 }, text)) : null);

const banner = (kind, ...content) => h("div", { class: `banner ${kind}` }, icon("warn"), h("div", {}, content));

function standIn(outcome) {
  const names = (outcome.result.models ?? []).filter((model) => model.stand_in).map((model) => model.name);
  if (!outcome.result.stand_in) return null;
  return banner("loud", h("strong", {}, "Not the real model. "),
    `A stand-in took the place of ${names.join(", ") || "a model"}. It imitates the real one by simple operations: `,
    "the picture and the times below say nothing about the real model.");
}

/** All but those about a stand-in: the banner says that in larger letters. */
function warnings(outcome) {
  const names = (outcome.result.models ?? []).filter((model) => model.stand_in).map((model) => model.name);
  return (outcome.result.warnings ?? []).filter((text) => !names.some((name) => text.includes(name)));
}

function gallery(pictures, befores) {
  const shown = pictures.filter((picture) => picture.decoded);
  if (shown.length === 0) return null;
  const rank = ({ decoded }) => (decoded.alpha ? 0 : decoded.grey ? 2 : 1);
  const ordered = [...shown].sort((a, b) => rank(a) - rank(b));
  return h("div", { class: "card" }, makeViewer(ordered, befores));
}

function safety(outcome, workflow) {
  if (outcome.status !== "completed") return null;
  const [tone, line] = judge(outcome, workflow);
  return h("section", { class: "card half" }, h("h3", {}, "Safety"),
    h("p", { class: `safety ${tone}` }, icon(tone === "good" ? "shield" : "warn"), line),
    outcome.verdicts.map((item) => h("p", { class: "verdict-text" }, item.data)),
    outcome.checks.map((check) => h("div", {},
      h("h4", {}, check.title, " ", h("span", { class: "dim" }, node("", check.item.node_id))),
      h("dl", { class: "checks" }, check.rows.map(([name, said, kind]) => [h("dt", {}, name), h("dd", { class: kind }, said)])))));
}

/** In one line, and never better than what is known. */
function judge(outcome, workflow) {
  const flagged = outcome.checks.some((check) => check.flagged);
  if (outcome.gated) {
    return flagged
      ? ["warn", "The workflow's safety gate let it through, though a check flagged it."]
      : ["good", "Passed: the workflow's safety gate let it through."];
  }
  if (flagged) return ["bad", "Flagged by a check, and not stopped: no gate ran in this workflow."];
  if (outcome.checks.length > 0) return ["good", "Checked: nothing was found. No gate ran in this workflow."];
  if (workflow.gate) return ["warn", "The workflow's safety check is not among the nodes that ran."];
  return ["", "Nothing was checked: this workflow has no safety gate."];
}

/** The texts that are not shown under Safety. */
const plainTexts = ({ texts, checks, verdicts }) =>
  texts.filter((item) => !verdicts.includes(item) && !checks.some((check) => check.item === item));

/** The one text in words of a run in which a model described a picture; with several nobody knows which it is. */
function captionOf(outcome) {
  const words = plainTexts(outcome).filter((item) => !isJson(item.data));
  const described = (outcome.result.timings ?? []).some((timing) => CAPTIONS.test(timing.class_type));
  return described && words.length === 1 ? words[0] : null;
}

function textCard(item, workflow, caption) {
  const kind = item === caption ? "Caption" : isJson(item.data) ? "JSON" : "Text";
  const title = workflow.titles.get(String(item.node_id)) ?? kind;
  const text = readable(item.data);
  const copy = navigator.clipboard && h("button", {
    type: "button", class: "small", onclick: async (event) => {
      await navigator.clipboard.writeText(text);
      event.target.textContent = "Copied";
    },
  }, "Copy");
  return h("section", { class: "card half" },
    h("div", { class: "row spread" }, h("h3", {}, title), copy),
    h("p", { class: "dim" }, node(item.class_type, item.node_id)),
    h("pre", { class: isJson(item.data) ? null : "prose", tabindex: 0 }, text));
}

function downloads(outcome, pictures, urls) {
  const known = new Map(pictures.map((picture) => [picture.item, picture.url]));
  const record = JSON.stringify(outcome.record, null, 2);
  const own = { filename: "result.json", type: "text", data: record, size: new Blob([record]).size };
  const rows = [...outcome.pictures, ...outcome.others, ...outcome.texts, own].map((item) => {
    const elsewhere = addressOf(item);
    const blob = elsewhere || known.get(item) ? null : blobOf(item);
    const href = elsewhere ?? known.get(item) ?? (blob && urls.of(blob));
    const attributes = elsewhere ? { href, rel: "noopener noreferrer", target: "_blank" } : { href, download: item.filename };
    const notes = [
      item.reencoded && `re-encoded; was ${item.reencoded.media_type}, ${bytes(item.reencoded.size)}`,
      elsewhere && "in the bucket",
    ].filter(Boolean);
    return h("li", {},
      h("div", {},
        href ? h("a", attributes, icon("download"), h("span", {}, item.filename)) : h("span", {}, item.filename),
        notes.length > 0 ? h("p", { class: "dim" }, notes.join(" · ")) : null),
      h("span", { class: "dim numbers" }, bytes(item.size)));
  });
  return h("section", { class: "card half" }, h("h3", {}, "Download"), h("ul", { class: "downloads" }, rows));
}

function times(outcome) {
  const timings = outcome.result.timings ?? [];
  if (timings.length === 0) return null;
  const longest = Math.max(...timings.map((timing) => timing.seconds)) || 1;
  return h("section", { class: "card half" }, h("h3", {}, "Time per node"),
    h("ul", { class: "times" }, timings.map((timing) => {
      const fill = timing.cached ? null : h("div", { class: "fill" });
      if (fill) fill.style.width = `${(100 * timing.seconds) / longest}%`;
      return h("li", {},
        h("span", { class: "name" }, timing.class_type, " ", h("span", { class: "dim" }, timing.node_id)),
        h("span", { class: timing.cached ? "numbers dim" : "numbers" }, timing.cached ? "cached" : seconds(timing.seconds)),
        h("div", { class: "track", "aria-hidden": "true" }, fill));
    })));
}

function changes(outcome) {
  const report = outcome.result.changes;
  if (!report) return null;
  const left = (report.dropped ?? []).filter((one) => one.reason === "muted" || one.reason === "bypassed");
  const stuck = [
    ...(report.cannot_run ?? []),
    ...(report.unknown ?? []).map((one) => ({ ...one, reason: "nobody knows this node" })),
    ...(report.problems ?? []).map((one) => ({ ...one, reason: one.problem })),
  ];
  const list = (report.changes ?? []).map((change) => h("li", {},
    h("p", {}, h("span", {}, node(change.class_type, change.node_id)), " ", h("code", {}, change.input), " ",
      h("del", {}, value(change.old)), " → ", h("ins", {}, value(change.new))),
    h("p", { class: "dim" }, change.reason)));
  const others = [...stuck, ...left.map((one) => ({ ...one, reason: `left out: ${one.reason} in the workflow` }))].map((one) => h("li", {},
    h("p", {}, node(one.class_type, one.node_id)), h("p", { class: "dim" }, one.reason)));
  return h("section", { class: "card half" }, h("h3", {}, "Changed for the CPU"),
    list.length > 0 ? h("ul", { class: "changes" }, list) : h("p", { class: "dim" }, "Nothing: the workflow ran as it was."),
    others.length > 0 ? h("ul", { class: "changes" }, others) : null);
}

function models(outcome) {
  const used = outcome.result.models ?? [];
  if (used.length === 0) return null;
  return h("section", { class: "card half" }, h("h3", {}, "Models"),
    h("ul", { class: "changes" }, used.map((model) => h("li", {},
      h("p", {}, model.name, model.stand_in ? h("strong", { class: "warn-text" }, " stand-in") : null),
      h("p", { class: "dim" }, [
        model.runtime, model.precision, `${model.threads} threads`,
        model.load_seconds > 0 ? `loaded in ${seconds(model.load_seconds)}` : "was in memory",
      ].join(" · "))))));
}
