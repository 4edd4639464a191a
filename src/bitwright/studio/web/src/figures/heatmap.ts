// A matrix as coloured cells, blocks outlined and named, numbers written where there is room; a cursor reads any cell.
import { at, clamp, colour, keep, layer, onTheme, part, ROW, short, SMALL, stage, stagger, textWidth, widthOf, writeLines } from "./svg";
import { cellSize, paint, strip } from "./matrix";
import { reader } from "./reader";
import type { HeatMap, Mark } from "./types";

const TALL = 440;
const CELL = 56;
const HINT = "Point, or use the arrow keys, to read a cell.";
/** How strong colours are under numbers, so that these stay readable. */
const UNDER = 0.45;

const cursors = new WeakMap<HTMLElement, [number, number]>();

/** A number in a cell: fixed places and a true minus; `bare` without a zero before the point. */
function written(v: number, digits: number, bare = false): string {
  const text = v.toFixed(digits).replace("-", "−").replace(/^−(0\.?0*)$/, "$1");
  return bare && digits ? text.replace(/^(−?)0\./, "$1.") : text;
}

export function draw(host: HTMLElement, view: HeatMap): void {
  const width = widthOf(host);
  const rows = view.values.length;
  const columns = view.values[0]?.length ?? 0;
  const rowLabels = view.row_labels ?? [];
  const columnLabels = view.column_labels ?? [];
  const tone = view.tone ?? "float";
  const left = rowLabels.length ? Math.min(width * 0.4, Math.max(...rowLabels.map((l) => textWidth(l, SMALL, 400))) + 10) : 0;

  // Numbers get as many digits as fit; where none fits, the cursor tells them.
  let digits = view.digits ?? 2;
  const broad = (d: number, bare: boolean): number => Math.max(...view.values.flat().map((v) => textWidth(written(v, d, bare), SMALL, 500, "mono"))) + 4;
  const room = Math.floor((width - left) / columns);
  const bare = Boolean(view.text) && broad(digits, false) > room;
  if (bare) while (digits > 0 && broad(digits, true) > room && view.peak * 10 ** digits >= 20) digits--;
  const numbers = Boolean(view.text) && broad(digits, bare) <= room;
  const wanted = numbers ? clamp(broad(digits, bare) + 14, 40, CELL * 1.3) : CELL;
  const cell = numbers ? Math.min(room, wanted) : cellSize(rows, columns, width - left, TALL, CELL);
  const tall = numbers ? Math.min(cell, 40) : cell;
  const w = cell * columns;
  const h = tall * rows;

  const marks = view.marks ?? [];
  const x0 = left + Math.max(0, (width - left - w) / 2);
  const headings = [["↓", view.rows_name ?? "output"], ["→", view.columns_name ?? "input"]].filter(([, name]) => name).map((pair) => pair.join(" "));
  // Both names in one line where they fit.
  const heading = textWidth(headings.join("\u2003")) <= width ? [headings.join("\u2003")] : headings;
  const named = marks.filter((m) => m.label).map((mark) => ({ mark, tw: textWidth(mark.label!, SMALL, 600) + 10 }));
  // Beside the matrix where a mark reaches its right edge and there is room; above it for the first row, and where it would hide numbers.
  const beside = (m: { mark: Mark; tw: number }): boolean => m.mark.column + (m.mark.columns ?? 1) >= columns && x0 + w + 6 + m.tw <= width;
  const over = named.filter((m) => !beside(m) && (m.mark.row === 0 || numbers));
  const headRows = keep(host, width, "marks", overRows(over, x0, cell, width));
  const headTop = 22 + (heading.length - 1) * ROW + (columnLabels.length ? 20 : 0);
  const y0 = headTop + headRows * 23;
  const strength = numbers ? UNDER : 1;

  const cursor = cursors.get(host);
  const pick = (row: number, column: number): void => {
    cursors.set(host, [clamp(row, 0, rows - 1), clamp(column, 0, columns - 1)]);
    show();
  };
  const { box, line } = reader(host, "Cells of the matrix", {
    near(x, y) {
      const [row, column] = [Math.floor((y - y0) / tall), Math.floor((x - x0) / cell)];
      if (row >= 0 && row < rows && column >= 0 && column < columns) pick(row, column);
      else this.none();
    },
    step(dx, dy) {
      const now = cursors.get(host);
      pick((now?.[0] ?? 0) + (now ? dy : 0), (now?.[1] ?? 0) + (now ? dx : 0));
    },
    none() {
      cursors.delete(host);
      show();
    },
  });

  // Two canvases: the upper one fades in over the lower or away from it.
  const back = part(box, "canvas", "pixels-back");
  const front = part(box, "canvas", "pixels-front");
  for (const canvas of [back, front]) {
    canvas.classList.add("pixels");
    Object.assign(canvas.style, { left: `${x0}px`, top: `${y0}px`, width: `${w}px`, height: `${h}px` });
  }
  const upper = front.classList.toggle("shown");
  paint(upper ? front : back, view.values, { peak: view.peak, colours: view.colours, tone, strength });
  onTheme(host, () => {
    for (const canvas of [back, front]) paint(canvas, view.values, { peak: view.peak, colours: view.colours, tone, strength });
    strip(scale, { peak: view.peak, colours: view.colours, tone }, strength);
  });

  const svg = stage(box, width, y0 + h + 2);
  const between = cell >= 12 ? [...Array.from({ length: rows - 1 }, (_, i) => [0, (i + 1) * tall, w, (i + 1) * tall]), ...Array.from({ length: columns - 1 }, (_, i) => [(i + 1) * cell, 0, (i + 1) * cell, h])] : [];
  layer(svg, "cells").style("transform", at(x0, y0)).selectAll("line").data(between).join("line").attr("class", "between")
    .attr("x1", (d) => d[0]!).attr("y1", (d) => d[1]!).attr("x2", (d) => d[2]!).attr("y2", (d) => d[3]!);
  layer(svg, "frame").selectAll("rect").data([0]).join("rect").attr("class", "frame").attr("x", x0 - 0.5).attr("y", y0 - 0.5).attr("width", w + 1).attr("height", h + 1);

  const names = layer(svg, "names");
  names.selectAll("text.axis").data([heading]).join("text").attr("class", "axis").style("transform", (d) => at(clamp(x0, 0, width - Math.max(...d.map((line) => textWidth(line)))), 13)).each(function (d) {
    writeLines(this as SVGTextElement, d);
  });
  const thin = (n: number, size: number, need: number): number => Math.max(1, Math.ceil(need / size)) || n;
  const everyRow = thin(rows, tall, 15);
  names.selectAll("text.row").data(rowLabels.map((text, i) => ({ text, i })).filter(({ i }) => i % everyRow === 0)).join("text").attr("class", "tick row").attr("text-anchor", "end")
    .text((d) => d.text).style("transform", (d) => at(x0 - 8, y0 + (d.i + 0.5) * tall + 4));
  const everyColumn = thin(columns, cell, Math.max(0, ...columnLabels.map((l) => textWidth(l, SMALL, 400))) + 6);
  names.selectAll("text.column").data(columnLabels.map((text, i) => ({ text, i })).filter(({ i }) => i % everyColumn === 0)).join("text").attr("class", "tick column").attr("text-anchor", "middle")
    .text((d) => d.text).style("transform", (d) => at(x0 + (d.i + 0.5) * cell, y0 - 8));

  const texts = numbers ? view.values.flatMap((row, i) => row.map((v, j) => ({ v, i, j }))) : [];
  layer(svg, "numbers").style("transform", at(x0, y0)).selectAll("text").data(texts).join("text").attr("class", "number").attr("text-anchor", "middle")
    .attr("x", (d) => (d.j + 0.5) * cell).attr("y", (d) => (d.i + 0.5) * tall + 4).text((d) => written(d.v, digits, bare));

  const outlines = marks.map((mark, i) => ({ mark, i, x: x0 + mark.column * cell, y: y0 + mark.row * tall, w: (mark.columns ?? 1) * cell, h: (mark.rows ?? 1) * tall }));
  layer(svg, "marks").selectAll<SVGRectElement, (typeof outlines)[0]>("rect").data(outlines, (d) => d.mark.label || d.i).join("rect").attr("class", "mark").attr("rx", 2)
    .style("stroke", (d) => colour(d.mark.tone ?? "quant")).style("transform", (d) => at(d.x, d.y)).style("width", (d) => `${d.w}px`).style("height", (d) => `${d.h}px`);
  const tags = place(outlines.filter((d) => d.mark.label), {
    width, bottom: y0 + h, right: x0 + w, beside: new Set(named.filter(beside).map((m) => m.mark)), over: new Set(over.map((m) => m.mark)), head: y0 - 22 - (columnLabels.length ? 20 : 0),
  });
  const plates = layer(svg, "tags").selectAll<SVGGElement, (typeof tags)[0]>("g").data(tags, (d) => d.mark.label!).join((enter) => {
    const g = enter.append("g");
    g.append("rect").attr("class", "plate").attr("rx", 4).attr("height", 19);
    g.append("text").attr("class", "direct small").attr("x", 5).attr("y", 14);
    return g;
  });
  plates.style("transform", (d) => at(d.tx, d.ty));
  plates.select("rect").attr("width", (d) => d.tw);
  plates.select("text").style("fill", (d) => colour(d.mark.tone ?? "quant")).text((d) => d.mark.label!);

  const scale = part(host, "div", "scale");
  host.insertBefore(scale, line);
  strip(scale, { peak: view.peak, colours: view.colours, tone }, strength);

  const show = (): void => {
    const now = cursors.get(host);
    const outline = layer(svg, "cursor").selectAll("rect").data(now ? [now] : []).join("rect").attr("class", "cursor");
    if (!now) return void (line.textContent = HINT);
    const [i, j] = now;
    outline.attr("x", x0 + j * cell).attr("y", y0 + i * tall).attr("width", cell).attr("height", tall);
    const row = rowLabels[i] ?? `${view.rows_name === undefined ? "output" : view.rows_name || "row"} ${i + 1}`;
    const column = columnLabels[j] ?? `${view.columns_name === undefined ? "input" : view.columns_name || "column"} ${j + 1}`;
    line.textContent = `${row}, ${column}: ${short(view.values[i]![j]!)}`;
  };
  if (cursor && (cursor[0] >= rows || cursor[1] >= columns)) cursors.delete(host);
  show();
}

interface Outline { mark: Mark; x: number; y: number; w: number; h: number }
interface Room { width: number; bottom: number; right: number; beside: Set<Mark>; over: Set<Mark>; head: number }

/** How many rows the names above the matrix need. */
function overRows(marks: { mark: Mark; tw: number }[], x0: number, cell: number, width: number): number {
  const items = marks.map(({ mark, tw }) => {
    const from = clamp(x0 + mark.column * cell, 0, width - tw);
    return { from, to: from + tw };
  }).sort((a, b) => a.from - b.from);
  return Math.max(0, ...stagger(items, 4, 6).map((row) => row + 1));
}

/** Where the name of each outline stands: beside the matrix, above it, or over cells where no two meet. */
function place(marks: Outline[], room: Room): (Outline & { tx: number; ty: number; tw: number })[] {
  const taken: [number, number, number][] = [];
  return marks.map((d) => {
    const tw = textWidth(d.mark.label!, SMALL, 600) + 10;
    const across = [d.x, d.x + d.w - tw, d.x + d.w / 2 - tw / 2].map((tx) => clamp(tx, 0, room.width - tw));
    const middle = d.y + d.h / 2 - 9.5;
    const rows = room.beside.has(d.mark) ? [[room.right + 6, middle], [room.right + 6, middle + 20], [room.right + 6, middle - 20]]
      : room.over.has(d.mark) ? [0, 1, 2, 3].map((row) => [across[0]!, room.head - row * 23])
      : [d.y - 21, d.y + d.h + 2, d.y + 2].flatMap((ty) => across.map((tx) => [tx, ty]));
    const options = rows as [number, number][];
    const free = options.find(([tx, ty]) => ty >= 16 && ty + 19 <= room.bottom + 20 && taken.every(([a, b, c]) => tx + tw <= a || tx >= b || ty + 19 <= c || ty >= c + 19)) ?? options[0]!;
    taken.push([free[0], free[0] + tw, free[1]]);
    return { ...d, tx: free[0], ty: free[1], tw };
  });
}
