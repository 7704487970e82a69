// Workflows: those baked into the image, and a file of the visitor's own. No DOM here.

/**
 * @typedef {Object} Workflow
 * @property {string} name
 * @property {string} title
 * @property {boolean} gate  whether a node of it looks like a safety gate.
 * @property {{key: string, title: string}[]} files  the inputs that take a picture, as NODE.INPUT.
 * @property {Map<string, string>} titles  node id → what its author called it, where that is known.
 * @property {Object|string} document  what a job says: the name of a baked workflow, or the workflow itself.
 */

// How classes that look at what must not be shown are called, here and in other packs.
const GATE = /safety|nsfw|nude|censor|moderat/i;
// Nodes that take a picture by its file's name; the second of them in any pack.
const LOADERS = new Set(["LoadImage", "LoadImageMask"]);
const LOADS_IMAGE = /load.*image/i;

/** One entry of GET /workflows. @returns {Workflow} */
export function baked(entry) {
  const files = (entry.inputs ?? []).map((file) => ({ key: String(file.key), title: String(file.title || file.key) }));
  return {
    name: String(entry.name),
    title: String(entry.title || entry.name),
    gate: Boolean(entry.gate),
    files: labelled(files),
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
    files: labelled(nodes.filter(takesPicture).map((node) => ({ key: `${node.id}.image`, title: node.title || node.type }))),
    titles: new Map(nodes.filter((node) => node.title).map((node) => [node.id, node.title])),
    document,
  };
}

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

const takesPicture = (node) => LOADERS.has(node.type) || (LOADS_IMAGE.test(node.type) && node.image);

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
      image: typeof node.inputs?.image === "string",
    }));
}

/** The nodes that run, those inside subgraphs too: their ids are those of the nodes around them, joined by colons. */
function fromUi(document) {
  const subgraphs = new Map((document.definitions?.subgraphs ?? []).map((graph) => [graph.id, graph]));
  const walk = (nodes, prefix, inside) => (nodes ?? []).filter(isObject).flatMap((node) => {
    if (node.mode === 2 || node.mode === 4) return []; // muted, bypassed
    const id = `${prefix}${node.id}`;
    const graph = subgraphs.get(node.type);
    if (graph) return inside.has(graph) ? [] : walk(graph.nodes, `${id}:`, new Set([...inside, graph]));
    const image = (node.inputs ?? []).find((input) => input?.name === "image");
    return [{
      id,
      type: String(node.type),
      title: typeof node.title === "string" ? node.title : "",
      image: Boolean(image?.widget) && image.link == null,
    }];
  });
  return walk(document.nodes, "", new Set());
}
