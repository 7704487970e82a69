// Pictures and other files of a result, as the browser holds them.

const SAMPLE = 256; // px: the size at which a picture is looked through for transparency and colour
const MASK_SIDE = 2048; // px: the longest side of a mask that is drawn from a picture's transparency
const SHOWN = /^image\/(png|jpeg|webp|gif|bmp|avif)$/;

/** Addresses for files in memory, which stay there until they are released. */
export class Urls {
  #urls = [];

  of(blob) {
    this.#urls.push(URL.createObjectURL(blob));
    return this.#urls.at(-1);
  }

  release() {
    for (const url of this.#urls.splice(0)) URL.revokeObjectURL(url);
  }
}

/**
 * The bytes of an item of a job's output; null where the worker put them elsewhere (S3).
 *
 * Only the pictures that a browser decodes as pictures keep their type: nothing that came out of a workflow is ever
 * opened as a page of this origin.
 */
export function blobOf(item) {
  if (item.type === "text") return new Blob([String(item.data)], { type: "application/octet-stream" });
  if (item.type !== "base64") return null;
  const binary = atob(item.data);
  const data = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i += 1) data[i] = binary.charCodeAt(i);
  return new Blob([data], { type: SHOWN.test(item.media_type) ? item.media_type : "application/octet-stream" });
}

/** The address at which the worker put an item, if it is one that may be followed. */
export function addressOf(item) {
  return item.type === "s3_url" && /^https?:\/\//.test(item.data) ? item.data : null;
}

/**
 * Decode a picture and look at it.
 *
 * @returns {Promise<{url: string, width: number, height: number, alpha: boolean, grey: boolean, image: HTMLImageElement}|null>}
 *   null where the browser cannot show it.
 */
export async function decode(url) {
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
  } catch {
    return null;
  }
  const [width, height] = [image.naturalWidth, image.naturalHeight];
  const scale = Math.min(1, SAMPLE / Math.max(width, height));
  const { data } = draw(image, Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale)));
  let [alpha, grey] = [false, true];
  for (let i = 0; i < data.length; i += 4) {
    alpha ||= data[i + 3] < 250;
    grey &&= Math.abs(data[i] - data[i + 1]) < 3 && Math.abs(data[i] - data[i + 2]) < 3;
  }
  return { url, width, height, alpha, grey: grey && !alpha, image };
}

/** A picture's transparency, drawn as a mask: white where it is opaque. */
export function maskOf({ image, width, height }) {
  const scale = Math.min(1, MASK_SIDE / Math.max(width, height));
  const picture = draw(image, Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale)));
  const { data } = picture;
  for (let i = 0; i < data.length; i += 4) {
    data[i] = data[i + 1] = data[i + 2] = data[i + 3];
    data[i + 3] = 255;
  }
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [picture.width, picture.height];
  canvas.getContext("2d").putImageData(picture, 0, 0);
  return canvas;
}

function draw(image, width, height) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}
