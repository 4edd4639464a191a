// Figures of a verdict in words.
import { significant } from "../text";
import type { Case, Result, Verdict } from "./types";

/** CPU time: as exact as it was measured. */
export const time = (seconds: number): string => (seconds < 0.9995 ? `${seconds < 0.00095 ? "< 1" : Math.round(1000 * seconds)} ms` : `${seconds.toFixed(2)} s`);
export const memory = (bytes: number): string => (bytes < 95_000 ? "< 0.1 MB" : `${(bytes / 1e6).toFixed(bytes < 9.95e6 ? 1 : 0)} MB`);

/** How a verdict is meant: good, bad, or nobody's doing. */
export const tone = (verdict: Verdict): "good" | "warn" | "error" => (verdict === "AC" ? "good" : verdict === "IE" ? "warn" : "error");
export const sign = (verdict: Verdict): string => ({ good: "✓", warn: "!", error: "✗" })[tone(verdict)];

/** A number that may be anything, NaN and infinity included, which JSON writes as null or as words. */
export function number(value: number | string | null): string {
  if (value === null) return "";
  const x = Number(value);
  if (!Number.isFinite(x)) return String(value);
  return x !== 0 && (Math.abs(x) < 1e-3 || Math.abs(x) >= 1e6) ? x.toExponential(2).replace("-", "−") : significant(x, 3);
}

/** Something to whom a state of the page is read: the state, and what it hangs on. */
export const spoken = (result: Result): string => `${result.sentence}.${result.reason ? ` ${result.reason}` : ""}`;

/** Which test to show first: the one that failed, else one of the learner's own, else one that printed something. */
export function telling(cases: Case[]): number {
  const failed = cases.findIndex((each) => each.verdict !== "AC");
  if (failed >= 0) return failed;
  const own = cases.findIndex((each) => each.kind === "own");
  return own >= 0 ? own : cases.findIndex((each) => each.output.trim());
}

/** A date and time near enough to be useful. */
export function when(at: string): string {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return at;
  const today = new Date().toDateString() === date.toDateString();
  return date.toLocaleString("en-GB", today ? { hour: "2-digit", minute: "2-digit" } : { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" });
}
