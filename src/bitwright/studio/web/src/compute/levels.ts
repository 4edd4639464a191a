// Rounding weights to levels, by the engine's arithmetic in float32 (core/qtensor.encode, core/measure.Error).
import type { Histogram } from "../figures/types";
import { fixed, scientific, significant } from "../text";

interface Base { weights: number[]; peak: number; low: number; high: number; counts: number[]; learned: number[][] }
const f = Math.fround;

/** Round half to even, as IEEE 754 and the engine do. */
export function even(x: number): number {
  const r = Math.round(x);
  return Math.abs(x % 1) === 0.5 && r % 2 !== 0 ? r - 1 : r;
}

/** Place of the nearest of ascending `levels`; the lower one of two equally near. */
function nearest(levels: number[], w: number): number {
  let low = 0;
  let high = levels.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (w <= (levels[middle]! + levels[middle + 1]!) / 2) high = middle;
    else low = middle + 1;
  }
  return low;
}

export function compute(base: Base, { bits, clip, scheme }: { bits: number; clip: number; scheme: string }): Histogram {
  const learned = scheme === "learned";
  const top = 2 ** (bits - 1);
  const step = f(f(clip) * f(base.peak)) / Math.max(top - 1, 1);
  const scale = f(step);
  const levels = learned ? base.learned[bits - 1]! : Array.from({ length: 2 ** bits }, (_, i) => step * (i - top));
  const n = base.counts.length;
  const errors = new Array<number>(n).fill(0);
  const used = new Set<number>();
  let signal = 0;
  let noise = 0;
  for (const w of base.weights) {
    const code = learned ? nearest(levels, w) : Math.min(Math.max(even(f(w / scale)), -top), top - 1);
    const back = learned ? f(levels[code]!) : f(scale * code);
    used.add(code);
    const square = (w - back) ** 2;
    signal += w * w;
    noise += square;
    const bin = Math.floor(((w - base.low) / (base.high - base.low)) * n);
    errors[Math.min(n - 1, Math.max(0, bin))]! += square;
  }
  const mse = noise / base.weights.length;
  const sqnr = 10 * Math.log10(signal / noise);
  const count = levels.length;
  return {
    low: base.low, high: base.high, counts: base.counts, levels, errors,
    clip: learned ? undefined : [levels[0]! - step / 2, levels[count - 1]! + step / 2],
    say: `${bits} bit${bits > 1 ? "s" : ""}: ${count} levels, ${used.size} in use, SQNR ${fixed(sqnr, 1)} dB.`,
    readouts: [
      { label: "Levels", value: `${count}`, tone: "quant" },
      { label: "Step", value: learned ? "uneven" : significant(step), tone: "quant" },
      { label: "MSE", value: scientific(mse), tone: "error" },
      { label: "SQNR", value: `${fixed(sqnr, 1)} dB`, tone: "error" },
      { label: "Levels in use", value: `${used.size} of ${count}` },
      { label: "Codes", value: `${fixed((base.weights.length * bits) / 8000, 2)} kB`, tone: "good" },
    ],
  };
}
