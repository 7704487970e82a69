// The page at /: choose a workflow, give it a picture, watch it run, look at the result.

import { Api, ApiError } from "./api.js";
import { byId, h, show } from "./dom.js";
import { Files } from "./files.js";
import { node, seconds } from "./format.js";
import { readOutcome } from "./outcome.js";
import { Urls } from "./pictures.js";
import { showOutcome, showRefusal } from "./result.js";
import { baked, own } from "./workflows.js";

const READY_MS = 2000;

const api = new Api(askToken);
const files = new Files(byId("files"));
const shown = new Urls(); // of the last result

let workflow = null; // the chosen one, see workflows.js
let job = null; // the one under way: {id, began, cancelled}

// ---- the worker

async function watchWorker() {
  for (;;) {
    const { ready, problem } = await api.ready();
    byId("worker").className = `worker ${ready ? "good" : "warn"}`;
    byId("worker").textContent = ready ? "ready" : `not ready: ${problem}`;
    if (ready) return;
    await new Promise((done) => { setTimeout(done, READY_MS); });
  }
}

function askToken(refused) {
  byId("token-note").textContent = refused ? "That token was refused." : "";
  show(true, byId("token-form"));
  byId("token").value = "";
  byId("token").focus();
  return new Promise((resolve) => {
    byId("token-form").onsubmit = (event) => {
      event.preventDefault();
      show(false, byId("token-form"));
      resolve(byId("token").value);
    };
  });
}

// ---- the workflow

async function listWorkflows() {
  let entries = [];
  try {
    entries = (await api.workflows()).map(baked);
    byId("workflow-note").textContent = entries.length > 0 ? "" : "No workflow is baked into this worker: choose a file of your own.";
  } catch (error) {
    byId("workflow-note").textContent = `The workflows cannot be listed: ${error.message}`;
  }
  byId("workflows").replaceChildren(h("div", { class: "choices" }, entries.map(workflowChoice)), ownChoice());
  show(true, byId("main"));
  const first = entries.find((entry) => entry.problem === "") ?? null;
  choose(first, first && byId("workflows").querySelector("input:enabled"));
}

function workflowChoice(entry) {
  const radio = h("input", { type: "radio", name: "workflow", disabled: entry.problem !== "", onchange: () => choose(entry, radio) });
  return h("label", { class: "option" }, radio, h("span", { class: "words" },
    h("span", { class: "strong" }, entry.title),
    sameName(entry) ? null : h("span", { class: "dim" }, entry.name),
    entry.problem === ""
      ? h("span", { class: "chips" }, h("span", { class: "chip" }, filesOf(entry)), gateChip(entry))
      : h("span", { class: "problem" }, `It cannot be run: ${entry.problem}`)));
}

/** Whether the title is but the name with blanks. */
const sameName = ({ title, name }) => title.replaceAll(" ", "_") === name.replaceAll(" ", "_");

function filesOf({ files: inputs }) {
  const noun = inputs.every((input) => input.kind === "image") ? "picture" : "file";
  return inputs.length === 1 ? `1 ${noun}` : `${inputs.length || "no"} ${noun}s`;
}

const gateChip = (entry) => h("span", { class: entry.gate ? "chip good" : "chip" }, entry.gate ? "safety check inside" : "no safety check");

function ownChoice() {
  const radio = h("input", { type: "radio", name: "workflow", onchange: () => choose(loaded, radio) });
  const name = h("span", { class: "dim" }, "A .json that ComfyUI saved or exported");
  const chips = h("span", { class: "chips" });
  const input = h("input", { type: "file", accept: ".json,application/json", class: "out-of-sight", tabindex: -1, "aria-label": "Workflow file",
    onchange: async () => { if (input.files.length) await take(input.files[0]); } });
  const button = h("button", { type: "button", class: "small", onclick: () => input.click() }, "Choose file");
  let loaded = null;

  async function take(file) {
    input.value = "";
    try {
      loaded = own(file.name, await file.text());
      name.textContent = file.name;
      chips.replaceChildren(gateChip(loaded));
      byId("workflow-note").textContent = "";
    } catch (error) {
      loaded = null;
      chips.replaceChildren();
      byId("workflow-note").textContent = error.message;
    }
    choose(loaded, radio);
  }

  const option = h("label", { class: "option" }, radio, h("span", { class: "words" }, h("span", { class: "strong" }, "A workflow of your own"), name, chips));
  const element = h("div", { class: "own" }, option, input, button);
  element.addEventListener("drop", (event) => {
    event.preventDefault();
    event.stopPropagation();
    if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
  });
  return element;
}

function choose(entry, radio = null) {
  workflow = entry;
  if (radio) radio.checked = true;
  files.reset(entry?.files ?? []);
  show(entry !== null, byId("files").parentElement);
  const heading = entry?.files.every((input) => input.kind === "image") ? "Picture" : "File";
  byId("files-heading").textContent = entry?.files.length > 1 ? `${heading}s` : heading;
  byId("run-note").textContent = "";
}

// ---- the job

byId("job").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (job) return;
  const missing = workflow && files.missing;
  byId("run-note").textContent = !workflow ? "Choose a workflow first." : missing ? `Choose a file for ${missing.title} first.` : "";
  if (!workflow) byId("workflows").querySelector("input")?.focus();
  else if (missing) missing.focus();
  else await run(workflow);
});

byId("cancel").addEventListener("click", async () => {
  if (!job || job.cancelled) return;
  job.cancelled = true;
  byId("cancel").disabled = true;
  byId("progress-state").textContent = "Cancelling";
  try {
    if (job.id) await api.cancel(job.id);
  } catch (error) {
    byId("progress-detail").textContent = `It could not be cancelled: ${error.message}`;
    byId("cancel").disabled = false;
    job.cancelled = false;
  }
});

async function run(chosen) {
  job = { id: null, began: Date.now(), cancelled: false };
  const ticking = setInterval(tick, 200);
  begin();
  try {
    const befores = await files.befores(shown);
    const inputs = await files.inputs();
    job.id = await api.submit({ workflow: chosen.document, inputs, outputs: { delivery: "base64", previews: true } });
    if (job.cancelled) await api.cancel(job.id);
    await showOutcome(readOutcome(await api.follow(job.id, progress)), chosen, befores, shown);
  } catch (error) {
    showRefusal(error instanceof ApiError ? error : new ApiError(`the page failed: ${error.message}`, { details: error.stack }));
  } finally {
    clearInterval(ticking);
    job = null;
    end();
  }
}

function begin() {
  show(false, byId("empty"));
  show(true, byId("progress"));
  byId("result").replaceChildren();
  shown.release();
  byId("progress-bar").removeAttribute("value");
  byId("progress-state").textContent = "Sending";
  byId("progress-detail").textContent = "";
  byId("progress-percent").textContent = "";
  byId("run").disabled = true;
  byId("cancel").disabled = false;
  byId("cancel").focus();
  if (!inSight(byId("answer"))) byId("answer").scrollIntoView({ block: "start" });
  tick();
}

function end() {
  show(false, byId("progress"));
  byId("run").disabled = false;
  byId("answer-heading").focus({ preventScroll: true });
  if (!inSight(byId("answer"))) byId("answer").scrollIntoView({ block: "start" });
}

const inSight = (element) => element.getBoundingClientRect().top >= 0 && element.getBoundingClientRect().top < innerHeight / 2;

function tick() {
  if (job) byId("progress-elapsed").textContent = seconds(Math.floor((Date.now() - job.began) / 100) / 10);
}

/** What the worker said of the job: RunPod's state, and a progress document or null. */
function progress(state, document) {
  if (state === "SILENT") {
    setText("progress-state", "The worker does not answer; trying again");
    return;
  }
  if (!job.cancelled) setText("progress-state", state === "IN_QUEUE" ? "Waiting for its turn" : "Running");
  if (!document || typeof document.percent !== "number") return;
  byId("progress-bar").value = document.percent;
  byId("progress-percent").textContent = `${Math.round(document.percent)} % · `;
  const place = `${Math.min(document.nodes_done + 1, document.nodes)} of ${document.nodes}`;
  setText("progress-detail", document.message || `${node(document.class_type, document.node_id)} · ${place}`);
}

// Screen readers say again what is set again.
function setText(id, text) {
  if (byId(id).textContent !== text) byId(id).textContent = text;
}

watchWorker();
listWorkflows();
