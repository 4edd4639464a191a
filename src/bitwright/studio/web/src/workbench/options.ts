// What can be chosen for a run, and the recipe that it means. Only what fits the model's kind is offered.
import type { Kind, Model, Problem } from "./api";

export type Numbers = "int" | "codebook" | "nf4" | "fp4" | "mxfp4" | "fp8";
export interface Options {
  numbers: Numbers; bits: number; group: string; symmetric: boolean; activations: string; method: string;
  source: "stdlib" | "self" | "path"; path: string; windows: number; heldout: number;
  integers: "int8" | "none"; target: string; data: string; samples: number; drop: string;
}
/** Options that an error can be about. */
export type Place = "model" | "numbers" | "bits" | "group" | "symmetric" | "activations" | "method" | "text" | "windows" | "heldout" | "data" | "drop" | "integers";
export type Choices = [value: string, label: string, words: string][];

const SUITABLE = { numbers: "int", symmetric: true, activations: "none", method: "descent", path: "", integers: "int8", target: "x86", data: "", samples: 256, drop: "" } as const;

/** Sensible beginnings: 4 bits for language, 8 for networks, which compute in integers. */
export function defaults(model: Pick<Model, "kind" | "bundled">): Options {
  const language = model.kind === "language";
  return {
    ...SUITABLE, bits: language ? 4 : 8, group: language ? "128" : "channel",
    source: model.bundled ? "stdlib" : "self", windows: model.bundled ? 64 : 128, heldout: model.bundled ? 16 : 8,
  };
}

export const NUMBERS: Choices = [
  ["int", "Integers", "Evenly spaced levels, the kind that runtimes read."],
  ["codebook", "Learned levels", "Levels moved to where the weights are (Lloyd and Max). For study: no runtime reads them yet."],
  ["nf4", "NF4", "16 fixed levels, dense near zero, where most weights lie."],
  ["fp4", "FP4", "4-bit floating point: steps double with size."],
  ["mxfp4", "MXFP4", "FP4 in groups of 32 whose scales are powers of two (OCP MX)."],
  ["fp8", "FP8", "8-bit floating point (E4M3): fine near zero, coarse far out."],
];
export const GROUPS: Choices = [
  ["32", "32", ""], ["64", "64", ""], ["128", "128", ""], ["256", "256", ""], ["channel", "Row", ""], ["tensor", "Matrix", ""],
];
export const METHODS: Choices = [
  ["descent", "Descent", "Column by column like GPTQ, then every choice is gone over again. Usually the most accurate; the default."],
  ["gptq", "GPTQ", "Rounds a column and lets the columns still to come make up for its error. Needs text."],
  ["mse", "Least squares", "Scales chosen for the least squared error. Seconds, and no text."],
  ["rtn", "Round to nearest", "Each weight goes to its nearest level. The plainest, the fastest, and the yardstick."],
];
export const NETWORK_METHODS: Choices = [
  ["descent", "Descent", "Column by column with the error handed on, then gone over again. The default."],
  ["gptq", "GPTQ", "Rounds a column and lets the columns still to come make up for its error."],
  ["adaround", "AdaRound", "Learns for each weight whether to round up or down."],
  ["lsq", "LSQ", "Trains weights and steps together for a few epochs. The slowest; for few bits."],
  ["mse", "Least squares", "Scales chosen for the least squared error."],
  ["rtn", "Round to nearest", "Each weight goes to its nearest level. The plainest and fastest."],
];
export const TARGETS: Choices = [
  ["x86", "x86", "uint8 activations with a zero point"], ["arm", "Arm", "int8 activations"], ["gpu", "GPU", "int8 without zero points"],
];

/** The bits a weight can have as the other options stand. */
export function bitsFor(kind: Kind, o: Options): number[] {
  if (kind === "network") return o.integers === "none" ? [4, 8] : [2, 3, 4, 5, 6, 7, 8];
  return o.numbers === "int" || o.numbers === "codebook" ? [1, 2, 3, 4, 5, 6, 7, 8] : [];
}

/** The scales' groups that fit. */
export function groupsFor(kind: Kind, o: Options): Choices {
  if (kind === "network") return o.integers === "none" ? [["16", "16", ""], ...GROUPS.slice(0, 4)] : [];
  return o.numbers === "mxfp4" ? [] : o.numbers === "codebook" ? GROUPS.slice(2) : [["16", "16", ""], ...GROUPS];
}

export function format(o: Options): string {
  return o.numbers === "int" || o.numbers === "codebook" ? `${o.numbers}${o.bits}` : o.numbers;
}

/** Activations can be 8-bit where weights are, with one scale a row. */
export function activationsFor(o: Options): Choices {
  const row = o.group === "channel";
  const found: Choices = [["none", "16-bit", ""]];
  if (row && o.numbers === "int" && o.bits === 8 && o.symmetric) found.push(["int8", "INT8", ""]);
  if (row && o.numbers === "fp8") found.push(["fp8", "FP8", ""]);
  return found;
}

/** Whether a runtime's own container holds these weights; otherwise decoded float weights are written, for study. */
export const packable = (o: Options): boolean => o.group !== "tensor" && (o.numbers === "fp8" || (o.numbers === "int" && ([2, 4, 8].includes(o.bits) || (o.bits === 1 && !o.symmetric))));

/** Whether a method looks at what flows into the layers. */
export const needsText = (o: Options): boolean => o.numbers === "codebook" || o.method === "gptq" || o.method === "descent";

/** The same options, with those replaced that the others leave no room for. */
export function settle(kind: Kind, o: Options): Options {
  const next = { ...o };
  const bits = bitsFor(kind, next);
  if (bits.length && !bits.includes(next.bits)) next.bits = bits.reduce((a, b) => (Math.abs(b - next.bits) < Math.abs(a - next.bits) ? b : a));
  const groups = groupsFor(kind, next).map(([value]) => value);
  if (kind === "network" && next.integers === "int8") next.group = "channel";
  else if (groups.length && !groups.includes(next.group)) next.group = groups.includes("128") ? "128" : groups[0]!;
  if (kind === "language" && !activationsFor(next).some(([value]) => value === next.activations)) next.activations = "none";
  return next;
}

/** The recipe's tables. */
export function recipe(model: Pick<Model, "kind" | "bundled">, o: Options): Record<string, unknown> {
  const group = /^\d+$/.test(o.group) ? Number(o.group) : o.group;
  if (model.kind === "network") {
    return {
      layer: { format: `int${o.bits}`, group, method: o.method, options: { damping: 0.001, sweeps: 4 } },
      network: { activations: o.integers, ...(o.integers === "int8" ? { target: o.target } : {}), ...(o.drop !== "" && o.integers === "int8" ? { max_drop: Number(o.drop) } : {}) },
      ...(model.bundled ? {} : { data: { samples: o.samples, ...(o.data ? { source: o.data } : {}) } }),
    };
  }
  const layer: Record<string, unknown> = { format: format(o), method: o.numbers === "codebook" ? "lloyd" : o.method, activations: o.activations };
  if (o.numbers === "int") layer["symmetric"] = o.symmetric;
  if (o.numbers !== "mxfp4") layer["group"] = group;
  return {
    layer,
    calibration: { source: o.source === "path" ? o.path : o.source, windows: o.windows, heldout_windows: o.heldout },
    ...(packable(o) ? {} : { output: "float" }),
  };
}

/** The options a recipe was made of. */
export function optionsOf(model: Pick<Model, "kind" | "bundled">, made: Record<string, unknown>): Options {
  const o = defaults(model);
  const layer = (made["layer"] ?? {}) as { format?: string; group?: number | string | null; method?: string; symmetric?: boolean; activations?: string };
  const text = (made["calibration"] ?? {}) as { source?: string; windows?: number; heldout_windows?: number };
  const network = (made["network"] ?? {}) as { activations?: "int8" | "none"; target?: string; max_drop?: number | null };
  const data = (made["data"] ?? {}) as { source?: string | null; samples?: number };
  const [, base, bits] = /^(int|codebook)([1-8])$/.exec(layer.format ?? "") ?? [];
  o.numbers = (base ?? layer.format ?? o.numbers) as Numbers;
  if (bits) o.bits = Number(bits);
  if (layer.group) o.group = String(layer.group);
  if (layer.method && layer.method !== "lloyd") o.method = layer.method;
  o.symmetric = layer.symmetric ?? true;
  o.activations = layer.activations ?? "none";
  if (text.source === "stdlib" || text.source === "self") o.source = text.source;
  else if (text.source) [o.source, o.path] = ["path", text.source];
  o.windows = text.windows ?? o.windows;
  o.heldout = text.heldout_windows ?? o.heldout;
  o.integers = network.activations ?? o.integers;
  o.target = network.target ?? o.target;
  if (typeof network.max_drop === "number") o.drop = String(network.max_drop);
  if (!model.bundled && data.source) o.data = data.source;
  o.samples = data.samples ?? o.samples;
  return settle(model.kind, o);
}

const SIGNS: [RegExp, Place][] = [
  [/max_drop|points of accuracy/i, "drop"],
  [/heldout|held-out/i, "heldout"],
  [/calibration\.windows/i, "windows"],
  [/calibration|text file|too little text|tokens of text|stdlib/i, "text"],
  [/--group|layer\.group|divide|per tensor|MatMulNBits/i, "group"],
  [/^activations|layer\.activations|activations need|share a type/i, "activations"],
  [/symmetric|zero points/i, "symmetric"],
  [/^method|layer\.method|method \w+ (learns|and format)/i, "method"],
  [/data\.|samples|labels|images|clips/i, "data"],
  [/format|bits|packing/i, "bits"],
];

/** An error beside its option: without the name of the recipe's key, which the option has already. */
export function told({ text, fix }: Problem): string {
  const what = text.replace(/^recipe: [\w.]+( '[^']*')?: /, "");
  return [what.charAt(0).toUpperCase() + what.slice(1), fix?.startsWith("Correct it, or leave it out") ? "" : fix].filter(Boolean).join(" ");
}

/** The option an error of the plan is about; the model where it names none. */
export function placeOf(problem: Problem, kind: Kind): Place {
  const text = `${problem.text} ${problem.fix ?? ""}`;
  const found = SIGNS.find(([sign]) => sign.test(problem.text))?.[1] ?? SIGNS.find(([sign]) => sign.test(text))?.[1] ?? "model";
  if (kind === "network" && problem.text.includes("nothing would be quantized")) return "integers";
  if (problem.kind === "DataError") return kind === "network" ? "data" : found === "heldout" || found === "windows" ? found : "text";
  return kind === "network" && (found === "text" || found === "windows" || found === "heldout") ? "data" : found;
}
