// Files that a person dropped or chose, and their way to the studio, with progress and a way out.
import { ask, Problem, refused } from "./api";

export interface Item { path: string; file: File }
/** What was chosen at once, and what people call it. */
export interface Batch { name: string; items: Item[] }

/** Depth of folders that is read. */
const DEPTH = 3;
const hidden = (name: string): boolean => name.startsWith(".") || name === "__pycache__";

const fileOf = (entry: FileSystemFileEntry): Promise<File> => new Promise((resolve, reject) => entry.file(resolve, reject));

async function children(entry: FileSystemDirectoryEntry): Promise<FileSystemEntry[]> {
  const reader = entry.createReader();
  const found: FileSystemEntry[] = [];
  for (;;) {
    // A reader hands out a hundred entries at most each time.
    const some = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return found;
    found.push(...some);
  }
}

async function walk(entry: FileSystemEntry, above: string, depth: number): Promise<Item[]> {
  if (hidden(entry.name)) return [];
  const path = above + entry.name;
  if (entry.isFile) return [{ path, file: await fileOf(entry as FileSystemFileEntry) }];
  if (depth >= DEPTH) return [];
  const found = await Promise.all((await children(entry as FileSystemDirectoryEntry)).map((child) => walk(child, `${path}/`, depth + 1)));
  return found.flat();
}

/** All files of a drop, those in folders too. */
export async function dropped(data: DataTransfer): Promise<Batch> {
  // Entries are gone after the first wait: take them all now.
  const entries = [...data.items].map((item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
  if (!entries.length) return chosen(data.files);
  return inside((await Promise.all(entries.map((entry) => walk(entry, "", 0)))).flat());
}

/** The files of an <input type=file>. */
export function chosen(files: Iterable<File>): Batch {
  const found = [...files].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
  return inside(found.filter((item) => !item.path.split("/").some(hidden)));
}

/** The paths without a folder that all of them lie in, which gives its name. */
function inside(items: Item[], name = ""): Batch {
  const top = items[0]?.path.split("/")[0];
  if (items.length && items.every((item) => item.path.startsWith(`${top}/`))) return inside(items.map((item) => ({ ...item, path: item.path.slice(top!.length + 1) })), top);
  return { name: name || (items.length === 1 ? items[0]!.path : "What you chose"), items };
}

/** What would be in vain to send: said before anything is. */
export function objection(items: Item[]): Problem | undefined {
  const ends = (end: string): boolean => items.some((item) => item.path.toLowerCase().endsWith(end));
  if (!items.length) return new Problem("There is no file in what was dropped.", "Drop a model folder, or an .onnx or .gguf file.");
  if (ends(".onnx") || ends(".gguf")) return undefined;
  if (!ends(".safetensors")) {
    const what = ends(".bin") || ends(".pt") || ends(".pth") ? "Pickled weights (.bin, .pt) are programs, and are not opened." : "None of these files is a model that can be checked.";
    return new Problem(what, "Drop a folder with config.json and *.safetensors, or an .onnx or .gguf file.");
  }
  if (!items.some((item) => item.path === "config.json")) return new Problem("Weights without a config.json do not say what model they are.", "Drop the whole folder: config.json, *.safetensors and, where there are several, model.safetensors.index.json.");
  return undefined;
}

function put(path: string, file: File, progress: (bytes: number) => void, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", path);
    request.upload.onprogress = (event) => progress(event.loaded);
    request.onload = () => {
      if (request.status < 300) resolve();
      else void refused(new Response(request.responseText, { status: request.status })).then(reject);
    };
    request.onerror = () => reject(new TypeError("no answer"));
    request.onabort = () => reject(new DOMException("stopped", "AbortError"));
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.send(file);
  });
}

/** Send all; returns the upload's id. `progress` gets the bytes sent so far. */
export async function send(items: Item[], progress: (bytes: number) => void, signal: AbortSignal): Promise<string> {
  const { id } = await ask<{ id: string }>("/api/uploads", {}, { signal });
  let before = 0;
  try {
    for (const { path, file } of items) {
      if (signal.aborted) throw new DOMException("stopped", "AbortError");
      await put(`/api/uploads/${id}/${path.split("/").map(encodeURIComponent).join("/")}`, file, (sent) => progress(before + sent), signal);
      before += file.size;
      progress(before);
    }
  } catch (error) {
    void fetch(`/api/uploads/${id}`, { method: "DELETE" }).catch(() => undefined);
    throw error;
  }
  return id;
}
