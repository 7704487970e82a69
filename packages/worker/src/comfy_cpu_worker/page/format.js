// Numbers and values as people read them.

const GAP = "\u00a0"; // a number and its unit stay in one line

/** `< 1 ms`, `42 ms`, `1.24 s`, `12.3 s`, `3 min 04 s`. */
export function seconds(value) {
  const s = Number(value);
  if (!Number.isFinite(s) || s < 0) return "–";
  if (s < 0.0005) return `< 1${GAP}ms`;
  if (s < 0.0995) return `${Math.round(s * 1000)}${GAP}ms`;
  if (s < 9.995) return `${s.toFixed(2)}${GAP}s`;
  if (s < 60) return `${s.toFixed(1)}${GAP}s`;
  return `${Math.floor(s / 60)}${GAP}min ${String(Math.floor(s % 60)).padStart(2, "0")}${GAP}s`;
}

/** `512 B`, `12 KB`, `1.2 MB`. */
export function bytes(value) {
  const n = Number(value);
  if (!Number.isFinite(n) || n < 0) return "–";
  if (n < 1000) return `${n}${GAP}B`;
  if (n < 999_500) return `${Math.round(n / 1000)}${GAP}KB`;
  return `${(n / 1_000_000).toFixed(1)}${GAP}MB`;
}

/** A value of a workflow: strings as they are, everything else as JSON. */
export function value(anything) {
  if (typeof anything === "string") return anything === "" ? "(empty)" : anything;
  return anything === null || anything === undefined ? "(none)" : JSON.stringify(anything);
}

/** `LoadImage (node 4)`, or as much of it as there is. */
export function node(classType, nodeId) {
  const id = nodeId === null || nodeId === undefined || nodeId === "" ? null : String(nodeId);
  if (classType) return id === null ? String(classType) : `${classType} (node ${id})`;
  return id === null ? "" : `node ${id}`;
}
