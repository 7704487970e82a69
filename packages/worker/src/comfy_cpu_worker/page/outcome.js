// What came of a job, read from the answer of GET /status. No DOM here.

/**
 * @typedef {Object} Outcome
 * @property {"completed"|"blocked"|"failed"|"cancelled"|"timed_out"} status
 * @property {string} message  why it did not complete; empty if it did.
 * @property {Object[]} errors  code, message, node_id, class_type, details, remedy.
 * @property {Object[]} pictures  items of the output: filename, media_type, type, data, node_id, class_type, ….
 * @property {Object[]} texts
 * @property {Object[]} others  everything that this page only offers for download.
 * @property {Object[]} checks  what safety checks said, as `readCheck` gives it.
 * @property {Object[]} verdicts  the texts in which a gate says what it thinks.
 * @property {boolean} gated  whether a safety gate ran.
 * @property {Object} result  timings, models, changes, warnings, stand_in.
 * @property {number} queueSeconds
 * @property {number} executionSeconds
 * @property {Object} record  all of it without the payloads: result.json.
 */

const WHY = {
  failed: "the worker did not say why",
  cancelled: "the job was cancelled",
  timed_out: "the job took longer than it may",
};
const STATUS = { COMPLETED: "completed", FAILED: "failed", CANCELLED: "cancelled", TIMED_OUT: "timed_out" };
const GATE = /safety_?gate/i;
const VERDICT = /^(SAFE|BORDERLINE|UNSAFE): /;

/** @returns {Outcome} */
export function readOutcome(answer) {
  const output = isObject(answer.output) ? answer.output : {};
  const result = isObject(output.result) ? output.result : {};
  // Only what both RunPod's state and the record call completed is: nothing unknown passes for a success.
  const state = STATUS[answer.status] ?? "failed";
  const said = output.status === "success_no_images" ? "completed" : output.status;
  const status = state === "failed" && said === "blocked" ? "blocked" : state === "completed" && said !== "completed" ? "failed" : state;
  const errors = status === "completed" ? [] : readErrors(answer, output, result);
  const delivered = status === "completed" ? ["images", "videos", "audio", "texts", "files"] : []; // nothing of a run that was stopped
  const items = unique(delivered.flatMap((key) => objects(output[key])))
    .sort((a, b) => (a.index ?? 0) - (b.index ?? 0)); // in the order in which the nodes ran
  const texts = items.filter((item) => item.type === "text");
  const pictures = items.filter((item) => !texts.includes(item) && /^image\//.test(item.media_type ?? ""));
  return {
    status,
    message: status === "completed" ? "" : oneLine(answer.error) || errors[0]?.message || WHY[status] || status,
    errors,
    pictures,
    texts,
    others: items.filter((item) => !texts.includes(item) && !pictures.includes(item)),
    checks: texts.map(readCheck).filter(Boolean),
    verdicts: texts.filter((item) => VERDICT.test(item.data)),
    gated: (result.timings ?? []).some((timing) => GATE.test(timing.class_type)),
    result,
    queueSeconds: (answer.delayTime ?? 0) / 1000,
    executionSeconds: result.execution_seconds ?? (answer.executionTime ?? 0) / 1000,
    record: { job: answer.id, state: answer.status, ...result, outputs: items.map(({ data, ...item }) => item) },
  };
}

/**
 * A safety check's answer, from the text that shows it; null for any other text.
 *
 * @returns {{item: Object, title: string, flagged: boolean, rows: [string, string, "good"|"warn"|"bad"|""][]}|null}
 */
export function readCheck(item) {
  const document = parsed(item.data);
  if (!isObject(document)) return null;
  if (typeof document.is_nsfw === "boolean") {
    const found = objects(document.detections).map((detection) => [
      String(detection.label), percent(detection.score), document.is_nsfw ? "bad" : "",
    ]);
    return {
      item,
      title: String(document.model ?? item.class_type),
      flagged: document.is_nsfw,
      rows: [
        ["Nudity", document.is_nsfw ? "found" : "none found", document.is_nsfw ? "bad" : "good"],
        ["Highest score", `${percent(document.max_score)} (counts from ${percent(document.threshold)})`, ""],
        ...found,
      ],
    };
  }
  if (isObject(document.classification)) {
    const tones = { SAFE: "good", BORDERLINE: "warn", UNSAFE: "bad" };
    const rows = Object.entries(document.classification).map(([name, state]) => [name, String(state), tones[state] ?? "bad"]);
    return { item, title: "Classification", flagged: rows.some(([, , tone]) => tone !== "good"), rows };
  }
  return null;
}

/** Whether a text is a JSON object or list. */
export function isJson(text) {
  const document = parsed(text);
  return isObject(document) || Array.isArray(document);
}

/** JSON as people read it, anything else as it is. */
export const readable = (text) => (isJson(text) ? JSON.stringify(parsed(text), null, 2) : String(text));

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

const objects = (list) => (Array.isArray(list) ? list.filter(isObject) : []);

const oneLine = (text) => (typeof text === "string" ? text.split(/\s+/).join(" ").trim() : "");

const percent = (score) => (typeof score === "number" ? `${Math.round(score * 100)} %` : "–");

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function readErrors(answer, output, result) {
  const errors = objects(result.errors);
  if (errors.length > 0) return errors;
  if (isObject(output.blocked)) return [{ code: "blocked", ...output.blocked }];
  const lines = Array.isArray(output.errors) && output.errors.length > 0 ? output.errors : [answer.error];
  return lines.filter((line) => typeof line === "string" && line).map((message) => ({ code: "", message: oneLine(message) }));
}

/** A picture that a workflow both previews and saves is shown once: as what it saved. */
function unique(items) {
  const kept = new Map();
  for (const item of items) {
    const key = item.sha256 && item.type !== "text" ? `${item.kind} ${item.sha256}` : item;
    if (!kept.has(key) || (kept.get(key).folder === "temp" && item.folder !== "temp")) kept.set(key, item);
  }
  return [...kept.values()];
}
