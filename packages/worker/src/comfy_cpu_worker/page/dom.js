// Making elements. Whatever comes from the server or a file goes through here, and becomes text, never HTML.

/**
 * Make an element.
 *
 * @param {string} tag
 * @param {Object} attributes  `onclick` and its kin take functions; null and false leave an attribute out.
 * @param {...(Node|string|number|null|false|Array)} children  anything but a node becomes text.
 */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An icon of 24 × 24, drawn as lines. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  fill(svg, { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true", focusable: "false" }, []);
  svg.append(fill(document.createElementNS(SVG, "path"), { d: ICONS[name] }, []));
  return svg;
}

/** Show or hide elements. */
export function show(shown, ...nodes) {
  for (const node of nodes) node.hidden = !shown;
}

/** The element of that id. */
export const byId = (id) => document.getElementById(id);

const SVG = "http://www.w3.org/2000/svg";

const ICONS = {
  check: "M5 12.5l4.5 4.5L19 7.5",
  cross: "M6.5 6.5l11 11M17.5 6.5l-11 11",
  download: "M12 4v11M7.5 11l4.5 4.5L16.5 11M5 20h14",
  shield: "M12 3l7.5 3v5.5c0 4.5-3 8-7.5 9.5-4.5-1.500-7.500-5-7.500-9.500V6z",
  stop: "M8.300 3h7.400L21 8.300v7.400L15.700 21H8.300L3 15.700V8.300zM7.500 12h9",
  warn: "M12 4L2.500 20h19zM12 10v4.500M12 17v.500",
};

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : String(child));
  }
  return node;
}
