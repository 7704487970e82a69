// The places for the pictures, and other files, that a workflow takes.

import { h, show } from "./dom.js";
import { bytes } from "./format.js";
import { Urls, decode } from "./pictures.js";

/** The pictures that the visitor gave, one place per file input of the workflow. */
export class Files {
  #element;
  #slots = [];

  constructor(element) {
    this.#element = element;
    // A picture that misses its place must not take the place of the page.
    for (const type of ["dragover", "drop"]) window.addEventListener(type, (event) => event.preventDefault());
    window.addEventListener("drop", (event) => this.#giveToFirst(event.dataTransfer?.files));
    window.addEventListener("paste", (event) => this.#giveToFirst(event.clipboardData?.files));
  }

  /** Show the places of a workflow. Pictures stay where the new workflow has a place for them, in order. */
  reset(inputs) {
    const given = this.#slots.map((slot) => slot.file).filter(Boolean);
    for (const slot of this.#slots) slot.take(null);
    this.#slots = inputs.map((input) => new Slot(input));
    this.#element.replaceChildren(...(inputs.length > 0
      ? this.#slots.map((slot) => slot.element)
      : [h("p", { class: "dim" }, "This workflow takes no file.")]));
    this.#slots.forEach((slot, index) => { if (given[index]) slot.take(given[index]); });
  }

  /** The first place that is empty; undefined if there is none. */
  get missing() {
    return this.#slots.find((slot) => !slot.file);
  }

  /** The pictures as a job's `inputs`: NODE.INPUT → {name, data}, in base64. */
  async inputs() {
    const entries = this.#slots.map(async ({ key, file }) => [key, { name: file.name, data: await base64(file) }]);
    return Object.fromEntries(await Promise.all(entries));
  }

  /** The pictures that the browser can show: `[{title, decoded}]`; their addresses are added to `urls`. */
  async befores(urls) {
    const shown = await Promise.all(this.#slots.map(async ({ title, file }) => ({ title, decoded: await decode(urls.of(file)) })));
    return shown.filter((one) => one.decoded);
  }

  #giveToFirst(files) {
    if (files?.length) (this.missing ?? (this.#slots.length === 1 ? this.#slots[0] : undefined))?.take(files[0]);
  }
}

let slots = 0;

class Slot {
  file = null;
  #preview;
  #name;
  #note;
  #remove;
  #input;
  #urls = new Urls();
  #what;

  constructor({ key, title, kind }) {
    slots += 1;
    this.key = key;
    this.title = title;
    this.#what = kind === "image" ? "a picture" : `${kind === "audio" ? "an" : "a"} ${kind} file`;
    const id = `file-${slots}`;
    this.#input = h("input", {
      type: "file", id, accept: `${kind}/*`, class: "out-of-sight", "aria-describedby": `${id}-note`,
      onchange: () => { if (this.#input.files.length) this.take(this.#input.files[0]); },
    });
    this.#preview = h("img", { class: "preview checker", alt: "", hidden: true });
    this.#name = h("span", { class: "name" });
    this.#note = h("span", { class: "dim", id: `${id}-note` });
    this.#remove = h("button", { type: "button", class: "small", hidden: true, onclick: () => { this.take(null); this.focus(); } },
      "Remove", h("span", { class: "out-of-sight" }, ` the file for ${title}`));
    const zone = h("label", { class: "drop", for: id },
      this.#preview, h("span", { class: "words" }, h("span", { class: "strong" }, title), this.#name, this.#note));
    for (const type of ["dragenter", "dragover"]) zone.addEventListener(type, () => zone.classList.add("over"));
    for (const type of ["dragleave", "drop"]) zone.addEventListener(type, () => zone.classList.remove("over"));
    zone.addEventListener("drop", (event) => {
      event.preventDefault();
      event.stopPropagation();
      if (event.dataTransfer.files.length) this.take(event.dataTransfer.files[0]);
    });
    this.element = h("div", { class: "slot" }, this.#input, zone, this.#remove);
    this.take(null);
  }

  focus() {
    this.#input.focus();
  }

  /** Take a file, or none. */
  async take(file) {
    this.#urls.release();
    this.file = file;
    this.#input.value = "";
    this.element.classList.toggle("filled", file !== null);
    show(file !== null, this.#remove);
    show(false, this.#preview);
    this.#name.textContent = file ? file.name : `Drop ${this.#what}, paste it, or choose one`;
    this.#note.textContent = file ? bytes(file.size) : "";
    if (!file) return;
    const decoded = await decode(this.#urls.of(file));
    if (this.file !== file) return; // another one came meanwhile
    show(decoded !== null, this.#preview);
    if (decoded) this.#preview.src = decoded.url;
    this.#note.textContent = decoded
      ? `${decoded.width} × ${decoded.height} px · ${bytes(file.size)}`
      : `${bytes(file.size)} · this browser cannot show it; the worker may know it`;
  }
}

function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Error(`${file.name} cannot be read: ${reader.error.message}`));
    reader.readAsDataURL(file);
  });
}
