// Workflows: those baked into the image, and a file of the visitor's own. No DOM here.

/**
 * @typedef {Object} Workflow
 * @property {string} name
 * @property {string} title
 * @property {boolean} gate  whether a node of it looks like a safety check.
 * @property {{key: string, title: string, kind: "image"|"video"|"audio"}[]} files  the inputs that take a file.
 * @property {string} problem  why it cannot be run, or empty.
 * @property {Map<string, string>} titles  node id → what its author called it, where that is known.
 * @property {Object|string} document  what a job says: the name of a baked workflow, or the workflow itself.
 */

// How classes that look at what must not be shown are called, here and in other packs.
const GATE = /safety|nsfw|nude|censor|moderat/i;
// The nodes that take a file by its name, ComfyUI's own and those of other packs, as the worker's shelf.py knows them.
const LOADERS = { LoadImage: "image", LoadImageMask: "image", LoadAudio: "audio", LoadVideo: "file" };
const LOADS = /load.*(image|mask|video|audio)|(image|mask|video|audio).*load/i;
const FILE_INPUTS = ["image", "mask", "video", "audio", "file"];

/** One entry of GET /workflows. @returns {Workflow} */
export function baked(entry) {
  const files = (entry.inputs ?? []).map((file) => slot(String(file.key), file.class_type, file.title));
  return {
    name: String(entry.name),
    title: String(entry.title || entry.name),
    gate: Boolean(entry.gate),
    files: labelled(files),
    problem: String(entry.problem ?? ""),
    titles: new Map(),
    document: String(entry.name),
  };
}

/** A workflow file in API or UI format. Throws an Error with one line. @returns {Workflow} */
export function own(fileName, text) {
  let document;
  try {
    document = JSON.parse(text);
  } catch {
    throw new Error(`${fileName} is not JSON: choose a workflow that was saved or exported in ComfyUI`);
  }
  const nodes = isObject(document) ? (Array.isArray(document.nodes) ? fromUi(document) : fromApi(document)) : [];
  if (nodes.length === 0) {
    throw new Error(`${fileName} is no workflow: choose a file that was saved or exported in ComfyUI`);
  }
  return {
    name: fileName,
    title: fileName.replace(/\.json$/i, ""),
    gate: nodes.some((node) => GATE.test(node.type)),
    files: labelled(nodes.filter(takesFile).map((node) => slot(`${node.id}.${takesFile(node)}`, node.type, node.title))),
    problem: "",
    titles: new Map(nodes.filter((node) => node.title).map((node) => [node.id, node.title])),
    document,
  };
}

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

/** The objects in a list; a file may have anything there. */
const objects = (list) => (Array.isArray(list) ? list.filter(isObject) : []);

function slot(key, type, title) {
  const kind = /video/i.test(type) ? "video" : /audio/i.test(type) ? "audio" : "image";
  return { key, title: String(title || type || key), kind };
}

/** The input under which a node takes a file; undefined if it takes none, or gets it from another node. */
function takesFile({ type, widgets, linked }) {
  const name = Object.hasOwn(LOADERS, type) ? LOADERS[type] : LOADS.test(type) ? FILE_INPUTS.find((one) => widgets.has(one)) : undefined;
  return linked.has(name) ? undefined : name;
}

/** Two inputs of the same title are told apart by their keys. */
function labelled(files) {
  const times = new Map();
  for (const { title } of files) times.set(title, (times.get(title) ?? 0) + 1);
  return files.map((file) => (times.get(file.title) > 1 ? { ...file, title: `${file.title} (${file.key})` } : file));
}

function fromApi(document) {
  return Object.entries(document)
    .filter(([, node]) => isObject(node) && typeof node.class_type === "string")
    .map(([id, node]) => ({
      id,
      type: node.class_type,
      title: typeof node._meta?.title === "string" ? node._meta.title : "",
      widgets: new Set(FILE_INPUTS.filter((name) => typeof node.inputs?.[name] === "string")),
      linked: new Set(FILE_INPUTS.filter((name) => Array.isArray(node.inputs?.[name]))),
    }));
}

/** The nodes that run, those inside subgraphs too: their ids are those of the nodes around them, joined by colons. */
function fromUi(document) {
  const subgraphs = new Map(objects(document.definitions?.subgraphs).map((graph) => [graph.id, graph]));
  const walk = (nodes, prefix, inside, promoted) => objects(nodes).flatMap((node) => {
    if (node.mode === 2 || node.mode === 4) return []; // muted, bypassed
    const id = `${prefix}${node.id}`;
    const graph = subgraphs.get(node.type);
    if (graph) return inside.has(graph) ? [] : walk(graph.nodes, `${id}:`, new Set([...inside, graph]), fromOutside(graph));
    const inputs = objects(node.inputs);
    const linked = inputs.filter((input) => input.link !== null && input.link !== undefined && !promoted.has(input.link));
    return [{
      id,
      type: String(node.type),
      title: typeof node.title === "string" ? node.title : "",
      widgets: new Set(inputs.filter((input) => input.widget && !linked.includes(input)).map((input) => input.name)),
      linked: new Set(linked.map((input) => input.name)),
    }];
  });
  return walk(document.nodes, "", new Set(), new Set());
}

/** The links of a subgraph that come from its own inputs: values that the node around it shows as its widgets. */
const fromOutside = (graph) => new Set(objects(graph.links).filter((link) => link.origin_id === -10).map((link) => link.id));
