// What the judge and the studio say of problems and submissions, as JSON (studio/practice/pages.py and api.py, judge/verdict.py).

export type Verdict = "AC" | "WA" | "RTE" | "TLE" | "MLE" | "OLE" | "CE" | "IE";

/** The first place where expected and yours part. */
export interface Difference {
  kind: string; text: string; place: string; expected: string; yours: string;
  absolute: number | null; relative: number | null; tolerance: number | null; wrong: number | null; places: number | null;
}
/** An exception; `stack` has [function, line, text], the innermost last. */
export interface Failure { phase: string; type: string; text: string; line: number; stack: [string, number, string][] }
export interface Case {
  name: string; kind: "sample" | "hidden" | "random" | "own" | "growth"; verdict: Verdict; words: string; cpu: number; memory: number; wall: number;
  input: string; expected: string; yours: string; output: string; difference: Difference | null; error: Failure | null; reason: string;
}
export interface Growth { sizes: number[]; seconds: number[]; exponent: number | null; allowed: number; late?: boolean }
export interface Result {
  verdict: Verdict; words: string; sentence: string; cases: Case[]; total: number; cpu: number; memory: number; tier: string;
  reason: string; line: number; growth: Growth | null;
}
export interface Submission { id: number | string; at: string; verdict: Verdict; words: string; sentence: string; cpu: number; memory: number }
export interface Own { id?: number | string; name: string; text: string }

export interface Step { line: number; event: string; function: string; variables: Record<string, string>; value?: string }
export interface Explanation {
  mistake: { name: string; says: string; next: string; how: string } | null;
  sentence: string; next: string;
  case: (Pick<Case, "name" | "input" | "expected" | "yours" | "difference"> & { reason?: string }) | null;
  smallest: boolean; idea: string; steps: Step[]; cut: boolean; code: string;
  reference: { line: number; variables: Record<string, string>; [more: string]: unknown }[]; honest: string;
}

/** The reference, line by line, on the first sample. */
export interface Story { code: string; input: string; expected: string; steps: Step[]; cut: boolean }

/** A hint, by number from 1; the approach is one more than the last hint. */
export interface Hint { number: number; html: string }

export interface Problem {
  slug: string; title: string; function: string; needs: string; code: string; starter: string;
  samples: { name: string; input: string; expected: string; note: string }[];
  own: Own[]; hints: { count: number; seen: (string | Hint)[] }; solved: boolean; due: string | null; note: string;
  tier: { name: string; words: string; reason: string; fix: string }; tutor: { ready: boolean; model: string }; submissions: Submission[];
}

/** Events of a submission being judged, and of an answer being written. */
export type Judged = ({ event: "case"; total: number } & Case) | ({ event: "result"; id: number | string; due?: string | null } & Result);
export type Told = { event: "text"; text: string } | { event: "done"; model?: string; tokens?: number };
