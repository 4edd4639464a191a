// Numbers as prose writes them; the same rules as authoring/filters.py.
const MINUS = "\u2212";

export function fixed(x: number, places: number): string {
  return x.toLocaleString("en-US", { minimumFractionDigits: places, maximumFractionDigits: places }).replace("-", x < 0 ? MINUS : "");
}

export function significant(x: number, digits = 3): string {
  const rounded = Number(x.toPrecision(digits));
  const exponent = rounded === 0 ? 0 : Math.floor(Math.log10(Math.abs(rounded)));
  const places = rounded === 0 ? 0 : Math.max(0, digits - 1 - exponent);
  return rounded.toLocaleString("en-US", { minimumFractionDigits: places, maximumFractionDigits: places }).replace("-", MINUS);
}

export function scientific(x: number, digits = 2): string {
  const [mantissa, exponent] = x.toExponential(digits).split("e") as [string, string];
  const raised = [...String(Number(exponent))].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(c)])).join("");
  return `${mantissa.replace("-", MINUS)} × 10${raised}`;
}
