// Two weights rounded under a metric, by the engine's arithmetic: nearest, error feedback (methods/gptq), descent (methods/descent), and the best of all codes.
import type { Lattice, Pick, Spot, Tone } from "../figures/types";
import { fixed, significant } from "../text";
import { even } from "./levels";

interface Pair { metric: [number, number, number]; x: string; y: string; cells: Record<string, Spot[]> }
interface Base { low: number; high: number; sweeps: number; pairs: Record<string, Pair> }
const NAMES: [string, Tone][] = [["nearest", "error"], ["feedback", "quant"], ["descent", "good"], ["best", "ink"]];

export function compute(base: Base, { pair, cell, x, y }: { pair: string; cell: string; x: number; y: number }): Lattice {
  const { metric, cells, ...names } = base.pairs[pair]!;
  const [a, b, c] = metric;
  const code = (v: number): number => Math.min(Math.max(even(v), base.low), base.high);
  const cost = ([p, q]: Spot): number => a * (x - p) ** 2 + 2 * b * (x - p) * (y - q) + c * (y - q) ** 2;

  const first = code(x);
  const aim = y + ((x - first) * b) / c;
  const found: Record<string, Spot> = { nearest: [code(x), code(y)], feedback: [first, code(aim)] };
  let [p, q] = found.feedback!;
  for (let sweep = 0; sweep < base.sweeps; sweep++) {
    p = code(x + ((y - q) * b) / a);
    q = code(y + ((x - p) * b) / c);
  }
  found.descent = [p, q];
  let best: Spot = [base.low, base.low];
  for (let i = base.low; i <= base.high; i++) for (let j = base.low; j <= base.high; j++) if (cost([i, j]) < cost(best)) best = [i, j];
  found.best = best;

  const error = (id: string): string => significant(cost(found[id]!));
  const told = (id: string): string => `${id} ${error(id)} at (${found[id]!.map((v) => fixed(v, 0)).join(", ")})`;
  return {
    ...names, metric, at: [x, y], cell: cells[cell]!, owner: cell, path: [[x, y], [first, aim], found.feedback!],
    picks: NAMES.map(([id, tone]): Pick => ({ id, tone, at: found[id]! })),
    say: `Weights ${fixed(x, 2)} and ${fixed(y, 2)}. Output error: ${NAMES.map(([id]) => told(id)).join("; ")}.`,
    readouts: NAMES.map(([id, tone]) => ({ label: `Output error, ${id}`, value: error(id), tone })),
  };
}
