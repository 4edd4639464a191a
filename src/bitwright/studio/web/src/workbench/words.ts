// Figures in words, as the engine's reports write them (engine/report/words.py).
import { fixed, significant } from "../text";
import type { Run, Row, State } from "./api";

/** Bytes as MB (10^6 bytes), GB from a thousand of them, kB below a tenth of one. */
export function bytes(size: number): string {
  if (size >= 1e9) return `${fixed(size / 1e9, 2)} GB`;
  if (size >= 1e5) return `${fixed(size / 1e6, size >= 1e6 ? 1 : 2)} MB`;
  return `${fixed(size / 1e3, 1)} kB`;
}

/** A time to wait: as exact as anyone wants to know it. */
export function duration(seconds: number): string {
  if (seconds < 1) return "under 1 s";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.round((seconds % 3600) / 60);
  return `${hours} h${minutes ? ` ${minutes} min` : ""}`;
}

export const left = (seconds: number | null | undefined): string => (seconds === null || seconds === undefined ? "" : seconds < 2 ? "nearly done" : `about ${duration(seconds)} left`);

/** A value with as many decimals as its 95 % interval deserves. */
export function measured(value: number, interval?: number | null): string {
  if (interval === null || interval === undefined || !Number.isFinite(interval)) return significant(value, 2);
  const small = interval > 0 ? interval : Math.abs(value);
  const places = small > 0 ? Math.min(9, Math.max(0, 1 - Math.floor(Math.log10(small)))) : 0;
  return `${fixed(value, places)} ± ${fixed(interval, places)}`;
}

/** A share in percent with two significant digits. */
export const percent = (share: number): string => `${significant(100 * share, 2)} %`;

export const STATES: Record<State, string> = {
  waiting: "Waiting for its turn", running: "Running", stopping: "Stopping", stopped: "Stopped", done: "Done", failed: "Failed",
};

const PHASES: Record<string, string> = {
  read: "Reading", plan: "Planning", calibrate: "Calibrating", quantize: "Quantizing", learn: "Learning", measure: "Measuring", certify: "Certifying", report: "Writing the report",
};
export const phase = (name: string): string => PHASES[name] ?? name.charAt(0).toUpperCase() + name.slice(1);

/** A number's sign, whatever the text: dates come as ISO text or as seconds. */
export function when(value: string | number | null | undefined): string {
  if (value === null || value === undefined) return "";
  const date = new Date(typeof value === "number" ? value * 1000 : value);
  if (Number.isNaN(date.getTime())) return "";
  const today = new Date().toDateString() === date.toDateString();
  return date.toLocaleString("en-GB", today ? { hour: "2-digit", minute: "2-digit" } : { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
}

/** A recipe in a few words: `int4 g128 descent`, `q4_k_m descent`, `3.2 MB descent`. */
export function recipeWords(run: Pick<Run, "recipe">): string {
  const layer = (run.recipe["layer"] ?? {}) as { format?: string; group?: number | string; method?: string; symmetric?: boolean; activations?: string };
  const network = (run.recipe["network"] ?? {}) as { activations?: string };
  const group = layer.group === undefined || layer.group === null ? "" : typeof layer.group === "number" ? `g${layer.group}` : layer.group;
  const activations = layer.activations && layer.activations !== "none" ? `${layer.activations} activations` : network.activations === "none" ? "weights only" : "";
  const budget = run.recipe["budget"] as { size?: number | null; bpw?: number | null; kl?: number | null } | null | undefined;
  const limit = budget && (budget.size ? bytes(budget.size) : budget.bpw ? `${budget.bpw} bits per parameter` : `KL ${budget.kl}`);
  const chosen = (run.recipe["type"] as string | null | undefined) ?? limit;
  if (chosen) return [chosen, layer.method].filter(Boolean).join(" · ");
  return [layer.format, group, layer.symmetric === false ? "zero point" : "", layer.method, activations].filter(Boolean).join(" · ");
}

/** What a path is called by people: its last part that says something. */
export const base = (path: string): string => path.replace(/\/+$/, "").replace(/\/(model\.onnx|out)$/, "").split("/").pop() || path;

/** A layer's name without what all names share: `layers.0.self_attn.q_proj`. */
export const short = (name: string): string => name.replace(/^(model|transformer|network)\./, "").replace(/\.weight$/, "");

/** Root mean square of the error as a share of the weights': SQNR as a length. */
export const relative = (row: Pick<Row, "sqnr">): number => (row.sqnr === null ? 0 : 10 ** (-row.sqnr / 20));
/** `15 of 16`; `16` where those in use are not known, "" where the values are floats. */
export const levels = (there?: number | null, used?: number | null): string => (typeof there !== "number" ? "" : typeof used === "number" ? `${used} of ${there}` : `${there}`);
/** `15 of 16 · 3.62 b`: levels in use and entropy. */
export const precision = (there?: number | null, used?: number | null, entropy?: number | null): string =>
  [levels(there, used), typeof entropy === "number" ? `${fixed(entropy, 2)}\u00a0b` : ""].filter(Boolean).join(" · ");
export const bitsOf = (row: Pick<Row, "stored_bits" | "rows" | "columns">): number => row.stored_bits / (row.rows * row.columns);
export const decibel = (value: number | null): string => (value === null ? "exact" : `${fixed(value, 1)} dB`);
