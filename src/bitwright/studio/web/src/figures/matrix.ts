// Matrices as pixels: one pixel per value, its colour mixed from the surface (zero) and the tone (peak).
import { short } from "./svg";
import type { Colours, Tone } from "./types";

const SHADES = 128;

type Rgb = [number, number, number];

function rgb(style: CSSStyleDeclaration, name: string): Rgb {
  const text = style.getPropertyValue(name).trim();
  const hex = text.length === 4 ? [...text.slice(1)].map((c) => c + c).join("") : text.slice(1);
  return [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)) as Rgb;
}

/** Colours of -SHADES ... SHADES, packed as a canvas stores them; `strength` is how far the peak goes towards the tone. */
function shades(style: CSSStyleDeclaration, tone: Tone, colours: Colours, strength: number): Uint32Array {
  const zero = rgb(style, "--surface");
  const plus = rgb(style, tone === "ink" ? "--ink" : `--d-${tone}`);
  const minus = colours === "diverging" ? rgb(style, tone === "float" || tone === "good" ? "--d-minus-warm" : "--d-minus-cool") : plus;
  return Uint32Array.from({ length: 2 * SHADES + 1 }, (_, i) => {
    const share = (Math.abs(i - SHADES) / SHADES) * strength;
    const [r, g, b] = zero.map((z, k) => Math.round(z + ((i < SHADES ? minus : plus)[k]! - z) * share)) as Rgb;
    return (255 << 24) | (b << 16) | (g << 8) | r;
  });
}

export interface Paint { peak: number; colours?: Colours | undefined; tone?: Tone | undefined; strength?: number }

/** Paint `values` into a canvas of as many pixels; the style sheet enlarges it without smoothing. */
export function paint(canvas: HTMLCanvasElement, values: number[][], { peak, colours = "diverging", tone = "float", strength = 1 }: Paint): void {
  const rows = values.length;
  const columns = values[0]?.length ?? 0;
  if (!rows || !columns) return;
  const table = shades(getComputedStyle(canvas), tone, colours, strength);
  canvas.width = columns;
  canvas.height = rows;
  const pen = canvas.getContext("2d")!;
  const image = pen.createImageData(columns, rows);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0, p = 0; i < rows; i++) {
    const row = values[i]!;
    for (let j = 0; j < columns; j++, p++) pixels[p] = table[SHADES + Math.max(-SHADES, Math.min(SHADES, Math.round((row[j]! / peak) * SHADES)))]!;
  }
  pen.putImageData(image, 0, 0);
}

/** A strip of the colours with what its ends mean; what lies beyond them has the colour of the end. */
export function strip(box: HTMLElement, { peak, colours = "diverging", tone = "float" }: Paint, strength = 1): void {
  let canvas = box.querySelector("canvas");
  if (!canvas) {
    box.replaceChildren(document.createElement("span"), (canvas = document.createElement("canvas")), document.createElement("span"));
    canvas.className = "pixels";
  }
  const low = colours === "diverging" ? -SHADES : 0;
  const n = 65;
  paint(canvas, [Array.from({ length: n }, (_, i) => low + ((SHADES - low) * i) / (n - 1))], { peak: SHADES, colours, tone, strength });
  box.firstElementChild!.textContent = colours === "diverging" ? short(-peak) : "0";
  box.lastElementChild!.textContent = short(peak);
}

/** The largest whole cell size in px for a matrix in `width` x `height`; a fraction only where a whole pixel does not fit. */
export function cellSize(rows: number, columns: number, width: number, height: number, most: number): number {
  const size = Math.min(width / columns, height / rows, most);
  return size >= 3 ? Math.floor(size) : size;
}
