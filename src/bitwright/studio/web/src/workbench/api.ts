// The workbench's words to the server: what it asks for, what comes back, and streams that outlive dropped connections.

export type State = "waiting" | "running" | "stopping" | "stopped" | "done" | "failed";
export type Kind = string;

/** `recipe` is what is proposed for it first. */
export interface Model { path: string; name: string; kind: Kind; bytes: number; bundled: boolean; from: "bundled" | "folder" | "run"; recipe: Record<string, unknown> }
export interface Models { roots: string[]; models: Model[] }

/** `share` is of the whole run, 0 to 1. */
export interface Progress { phase: string; share: number; label?: string; seconds_left?: number | null }
/** Unique values of a matrix's codes, those in use of those there, and their entropy in bits per weight; the same of its
 * rounded inputs. Null where they are floats or were not counted, missing in runs of earlier releases. */
export interface Levels {
  levels?: number | null; levels_used?: number | null; entropy?: number | null;
  input_levels?: number | null; input_levels_used?: number | null; input_entropy?: number | null;
}
export interface Precision extends Levels { event: "precision"; name: string; format: string; rows: number; columns: number; stored_bits: number }
export interface Row extends Levels {
  name: string; format: string; method: string; rows: number; columns: number; stored_bits: number;
  mse: number; sqnr: number | null; output_error?: number | null; seconds?: number; notes?: string[];
}
/** What a finished run came to; a measure that was not taken is missing or null. */
export interface Summary {
  final_bytes: number; source_bytes: number; stored_bits?: number | null; kl?: number | null; kl_interval?: number | null;
  top1?: number | null; top1_interval?: number | null; perplexity?: [number, number] | null;
  words?: string | null; tone?: "good" | "warn" | "error" | null; rank?: number | null; headline?: string | null;
  facts?: { label: string; before: string; value: string; detail: string; kind: string }[];
  cautions?: string[]; fallbacks?: string[]; readers?: string[];
}
export interface Run {
  id: string; name: string; model: string; kind: Kind; recipe: Record<string, unknown>; state: State;
  created?: string | number | null; started?: string | number | null; finished?: string | number | null;
  progress?: Progress | null; summary?: Summary | null; error?: string | null;
}
export interface RunInFull extends Run { rows: Row[]; notes: string[]; certificate: boolean; line?: number }

export interface Plan {
  kind?: Kind;
  quantized: { name: string; rows: number; columns?: number; format: string | null; formats?: string[]; method: string; note?: string | null; stored_bits?: number; levels?: number; input_levels?: number | null }[];
  copied?: string[]; kept_float: Record<string, string>; activations?: string[];
  source_bytes: number; final_bytes: number; possible_bytes?: number[] | null; stored_bits_per_weight?: number | null; bits_per_parameter?: number; peak_memory_bytes?: number; seconds?: number;
  runtimes?: string[]; notes: string[];
}
export interface Matrix {
  name: string; low: number; high: number; before: number[]; after: number[]; errors: number[];
  sqnr: number | null; mse: number; levels: number[] | null;
}
export interface Point { id: string; name: string; model: string; source: string; bytes: number; kl: number; kl_interval: number; bits: number }
export interface Finding { event: "finding"; what: string; good: boolean | null; detail: string }

/** What went wrong, in words, with what to do about it; `key` names the option at fault, where it is one. */
export class Problem extends Error {
  constructor(readonly text: string, readonly fix: string | null = null, readonly kind = "", readonly status = 0, readonly key: string | null = null) {
    super(text);
  }
}

export function problemOf(error: unknown): Problem {
  if (error instanceof Problem) return error;
  if (error instanceof TypeError) return new Problem("The studio does not answer.", "Is it still running in your terminal? Nothing is lost: runs go on when it starts again.", "Offline");
  return new Problem(error instanceof Error ? error.message : String(error));
}

/** Whether it is the studio that cannot, rather than what was asked that is wrong: trying again may help. */
export const outage = (problem: Problem): boolean => problem.status >= 500 || problem.kind === "Offline";

/** Whether a request was called off by us. */
export const aborted = (error: unknown): boolean => error instanceof DOMException && error.name === "AbortError";

export async function refused(answer: Response): Promise<Problem> {
  try {
    const { error } = (await answer.json()) as { error: { kind: string; text: string; fix: string | null; key: string | null } };
    return new Problem(error.text, error.fix, error.kind, answer.status, error.key);
  } catch {
    return new Problem(`The studio answered with an error (${answer.status}).`, "The terminal it runs in may show more.", "", answer.status);
  }
}

/** Ask for JSON, or post `body` as JSON; raises Problem. */
export async function ask<T>(path: string, body?: unknown, init: RequestInit = {}): Promise<T> {
  const given = body === undefined ? init : { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), ...init };
  const answer = await fetch(path, given);
  if (!answer.ok) throw await refused(answer);
  return (answer.status === 204 ? undefined : await answer.json().catch(() => undefined)) as T;
}

/** Post `body` and hand on each event of the answering stream; raises Problem for one that says what went wrong. */
export async function stream<T>(path: string, body: unknown, on: (event: T) => void, signal: AbortSignal): Promise<void> {
  const answer = await fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal });
  if (!answer.ok || !answer.body) throw await refused(answer);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value;
    const blocks = rest.split(/\r?\n\r?\n/);
    rest = blocks.pop()!;
    for (const block of blocks) {
      const data = block.split(/\r?\n/).filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trim()).join("\n");
      if (!data) continue;
      const event = JSON.parse(data) as Said & { event?: string; error?: Said };
      // A test's event may hold the error of the program it judged: only one without a name is about us.
      if (event.event === "error" || (!event.event && event.error)) throw said(event.error ?? event);
      on(event as T);
    }
  }
}

interface Said { text?: string; what?: string; fix?: string | null; kind?: string }
const said = ({ text, what, fix, kind }: Said): Problem => new Problem(text ?? what ?? "The studio gave no reason.", fix ?? null, kind);

/** Longest wait between two attempts to connect again, in ms. */
const PATIENCE = 8000;

/** Follow a stream of events until the returned function is called: connects again after the last line it saw.
 *
 * A hidden tab lets go of its connection (browsers allow six to one server), and takes it up where it left. */
export function follow(path: string, on: { event: (data: never) => void; up?: (again: boolean) => void; down?: () => void }, after?: number): () => void {
  let source: EventSource | undefined;
  let last = after;
  let waiting = 0;
  let wait = 500;
  let before = false;
  const open = (): void => {
    clearTimeout(waiting);
    source?.close();
    source = new EventSource(last === undefined ? path : `${path}?after=${last}`);
    source.onopen = () => {
      wait = 500;
      on.up?.(before);
      before = true;
    };
    source.onmessage = (message: MessageEvent<string>) => {
      if (/^\d+$/.test(message.lastEventId)) last = Number(message.lastEventId);
      on.event(JSON.parse(message.data) as never);
    };
    source.onerror = () => {
      source?.close();
      on.down?.();
      if (document.hidden) return;
      waiting = window.setTimeout(open, wait);
      wait = Math.min(PATIENCE, wait * 2);
    };
  };
  const look = (): void => {
    if (document.hidden) {
      clearTimeout(waiting);
      source?.close();
    } else open();
  };
  document.addEventListener("visibilitychange", look);
  if (!document.hidden) open();
  return () => {
    document.removeEventListener("visibilitychange", look);
    clearTimeout(waiting);
    source?.close();
  };
}

export const over = (state: State): boolean => state === "done" || state === "failed" || state === "stopped";
export const matrixPath = (run: string, name: string): string => `/api/runs/${run}/matrices/${name.split("/").map(encodeURIComponent).join("/")}`;
