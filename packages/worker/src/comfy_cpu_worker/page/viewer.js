// The pictures of a result: before and after with a slider between them, on a checkerboard.

import { h, show } from "./dom.js";
import { bytes } from "./format.js";
import { maskOf } from "./pictures.js";

const VIEWS = [["compare", "Before / after"], ["result", "Result"], ["mask", "Mask"]];
const GROUNDS = [["checker", "Checkerboard"], ["white", "White"], ["black", "Black"]];

let viewers = 0;

/**
 * @param {{item: Object, decoded: Object, label: string}[]} results  what the workflow made; at least one.
 * @param {{title: string, decoded: Object}[]} befores  what went in; may be empty.
 */
export function makeViewer(results, befores) {
  viewers += 1;
  const after = h("img", { class: "layer after", draggable: "false" });
  const before = h("img", { class: "layer before", draggable: "false" });
  const slider = h("input", {
    type: "range", class: "layer slider", min: 0, max: 100, value: 50, "aria-label": "How much of the picture before is shown",
    oninput: () => split(),
  });
  const handle = h("div", { class: "handle", "aria-hidden": "true" }, h("span"));
  const tags = [h("span", { class: "tag left", "aria-hidden": "true" }, "before"), h("span", { class: "tag right", "aria-hidden": "true" }, "after")];
  const mask = h("div", { class: "layer cut", role: "img", "aria-label": "Mask: white is kept, black is removed" });
  const stage = h("div", { class: "stage" }, after, before, mask, handle, slider, tags);
  const caption = h("figcaption", { class: "dim" });

  let current = results[0];
  let source = befores[0] ?? null;
  let view = source ? "compare" : "result";
  let ground = "checker";

  const views = choice("View", VIEWS, view, (name) => { view = name; update(); });
  const grounds = choice("Background", GROUNDS, ground, (name) => { ground = name; update(); }, "swatches");
  const sources = befores.length < 2 ? null : h("label", { class: "source" }, "Before: ", h("select", {
    onchange: (event) => { source = befores[Number(event.target.value)]; update(); },
  }, befores.map((one, index) => h("option", { value: index }, one.title))));
  const strip = results.length < 2 ? null : h("div", { class: "strip", role: "group", "aria-label": "Pictures" },
    results.map((one) => h("button", {
      type: "button", class: "thumb", onclick: () => { current = one; update(); },
    }, h("img", { src: one.decoded.url, alt: "" }), h("span", {}, one.label))));

  function split() {
    stage.style.setProperty("--split", `${slider.value}%`);
    slider.setAttribute("aria-valuetext", `${slider.value} % before, ${100 - slider.value} % after`);
  }

  function update() {
    const { decoded, item, label } = current;
    show(decoded.alpha, views.option("mask"));
    show(source !== null, views.option("compare"));
    const shown = view === "mask" && !decoded.alpha ? "result" : view;
    views.check(shown);
    after.src = decoded.url;
    after.alt = `${label}: ${item.filename}`;
    if (source) {
      before.src = source.decoded.url;
      before.alt = `Before: ${source.title}`;
    }
    show(shown === "compare", before, handle, slider, ...tags);
    show(shown !== "mask", after);
    show(shown === "mask", mask);
    if (shown === "mask") mask.replaceChildren(maskOf(decoded));
    show(decoded.alpha, grounds.element);
    if (sources) show(shown === "compare", sources);
    stage.className = `stage ${ground} ${shown}`;
    stage.style.setProperty("--ratio", String(decoded.width / decoded.height));
    caption.textContent = `${item.filename} · ${decoded.width} × ${decoded.height} px · ${bytes(item.size)}`;
    for (const [index, button] of [...(strip?.children ?? [])].entries()) {
      button.setAttribute("aria-pressed", String(results[index] === current));
    }
  }

  split();
  update();
  const tools = h("div", { class: "tools" }, views.element, sources, grounds.element);
  return h("figure", { class: "viewer" }, tools, stage, caption, strip);
}

/** A few radio buttons in a row. */
function choice(label, options, first, onChange, style = "") {
  const name = `${label.toLowerCase()}-${viewers}`;
  const inputs = new Map();
  const element = h("div", { class: `choice ${style}`, role: "radiogroup", "aria-label": label }, options.map(([value, text]) => {
    const input = h("input", { type: "radio", name, value, checked: value === first, onchange: () => onChange(value) });
    inputs.set(value, input);
    return h("label", { class: `pick-${value}`, title: text }, input, h("span", {}, text));
  }));
  return {
    element,
    option: (value) => inputs.get(value).parentElement,
    check: (value) => { inputs.get(value).checked = true; },
  };
}
