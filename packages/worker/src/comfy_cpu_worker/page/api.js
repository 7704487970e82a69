// The worker's API: RunPod's queue endpoints under v2/local/, and what this page needs beside them.

const POLLS = [[5_000, 150], [60_000, 400], [Infinity, 1000]]; // until so many ms: ask every so many ms
const AGAIN_MS = 1000;
const PATIENCE_MS = 30_000; // how long a worker that is under way may be silent: it may be restarting, and keeps its jobs
const TOKEN_KEY = "comfy-cpu-token";

/** The states of a job that is over. */
const FINAL = new Set(["COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"]);

/** What the worker refused, or that it did not answer. */
export class ApiError extends Error {
  /**
   * @param {string} message  one line.
   * @param {{status?: number, remedy?: string|null, details?: string}} more  status is 0 where there was no answer.
   */
  constructor(message, { status = 0, remedy = null, details = "" } = {}) {
    super(message);
    this.status = status;
    this.remedy = remedy;
    this.details = details;
  }
}

export class Api {
  #askToken;
  #asking = null;

  /** @param {(refused: boolean) => Promise<string>} askToken  asks for a token; refused says that the last was wrong. */
  constructor(askToken) {
    this.#askToken = askToken;
  }

  /** The workflows baked into the image, as workflows.js describes them. */
  async workflows() {
    return (await this.#request("GET", "workflows")).workflows ?? [];
  }

  /** Whether the worker takes jobs: `{ready: boolean, problem: string}`. */
  async ready() {
    try {
      const answer = await fetch(here("ready"), { cache: "no-store", credentials: "omit" });
      if (answer.ok) return { ready: true, problem: "" };
      return { ready: false, problem: describe(answer, await body(answer)).message };
    } catch {
      return { ready: false, problem: "the worker does not answer" };
    }
  }

  /** Hand a job over; gives its id. */
  async submit(input) {
    return (await this.#request("POST", "v2/local/run", { input })).id;
  }

  async cancel(id) {
    await this.#request("POST", `v2/local/cancel/${encodeURIComponent(id)}`);
  }

  /**
   * Follow a job to its end, and give what GET /status says of it then.
   *
   * @param {(state: string, progress: Object|null) => void} onUpdate  state is RunPod's word, or SILENT while the worker
   *   does not answer.
   */
  async follow(id, onUpdate) {
    const path = encodeURIComponent(id);
    const began = Date.now();
    for (;;) {
      const answer = await this.#patiently(`v2/local/stream/${path}`, onUpdate);
      for (const item of answer.stream ?? []) onUpdate(answer.status, item.output ?? null);
      if (FINAL.has(answer.status)) break;
      onUpdate(answer.status, null);
      const spent = Date.now() - began;
      await sleep(POLLS.find(([until]) => spent < until)[1]);
    }
    return this.#patiently(`v2/local/status/${path}`, onUpdate);
  }

  async #patiently(path, onUpdate) {
    const until = Date.now() + PATIENCE_MS;
    for (;;) {
      try {
        return await this.#request("GET", path);
      } catch (error) {
        const passing = error instanceof ApiError && [0, 429, 502, 503, 504].includes(error.status);
        if (!passing || Date.now() > until) throw error;
        onUpdate("SILENT", null);
        await sleep(AGAIN_MS);
      }
    }
  }

  /** Where the worker wants a token, ask for one and try again. */
  async #request(method, path, document) {
    for (;;) {
      const token = sessionStorage.getItem(TOKEN_KEY);
      const headers = { Accept: "application/json" };
      if (token) headers.Authorization = `Bearer ${token}`;
      if (document !== undefined) headers["Content-Type"] = "application/json";
      let answer;
      try {
        answer = await fetch(here(path), {
          method,
          headers,
          body: document === undefined ? undefined : JSON.stringify(document),
          cache: "no-store",
          credentials: "omit",
        });
      } catch {
        throw new ApiError("the worker does not answer", { remedy: "check that `comfy-cpu serve` still runs" });
      }
      const said = await body(answer);
      if (answer.ok) return said ?? {};
      if (answer.status !== 401) throw describe(answer, said);
      this.#asking ??= this.#askToken(token !== null).finally(() => { this.#asking = null; });
      sessionStorage.setItem(TOKEN_KEY, await this.#asking);
    }
  }
}

/** An address of this worker: relative, so that the page also works below a path of a proxy. */
const here = (path) => new URL(path, document.baseURI);

const sleep = (ms) => new Promise((done) => { setTimeout(done, ms); });

async function body(answer) {
  try {
    return JSON.parse(await answer.text());
  } catch {
    return null; // a proxy's page
  }
}

/** An error from an answer: `{"error": text or {message, remedy}, "remedy"}`, or whatever a proxy sends. */
function describe(answer, said) {
  const inside = said?.error !== null && typeof said?.error === "object" ? said.error : said;
  const message = [inside?.message, inside?.problem, inside?.error, inside?.detail].find((text) => typeof text === "string" && text);
  const wait = answer.headers.get("Retry-After");
  const remedy = inside?.remedy ?? said?.remedy ?? (wait ? `try again in ${wait} s` : null);
  return new ApiError(message ?? `the worker answered ${answer.status} ${answer.statusText}`.trim(), { status: answer.status, remedy });
}
