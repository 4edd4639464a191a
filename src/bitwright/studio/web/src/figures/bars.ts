// Lengths compared: names at the left (above where there is little room), values as read at the right; bars keep their identity when the order changes.
import { scaleLinear, scaleLog } from "d3-scale";
import { at, axisX, colour, decades, keep, layer, named, stage, textWidth, widthOf, type Scale } from "./svg";
import type { Bar, Bars } from "./types";

const ROW = 30;
const STACKED = 46;
const THICK = 18;

export function draw(host: HTMLElement, view: Bars): void {
  const width = widthOf(host);
  const names = keep(host, width, "names", Math.max(0, ...view.bars.map((b) => textWidth(b.label))));
  const values = keep(host, width, "values", Math.max(0, ...view.bars.map((b) => textWidth(b.text, 13, 500, "mono"))));
  const stacked = names > width * 0.34;
  const left = stacked ? 0 : names + 12;
  const row = stacked ? STACKED : ROW;
  const right = width - values - 12;

  const x = (view.log ? scaleLog().domain([view.low || view.high / 1000, view.high]) : scaleLinear().domain([view.low ?? 0, view.high])).range([left, right]).clamp(true) as Scale;
  const ticks = view.log ? decades(x.domain()[0]!, view.high, Math.max(2, Math.floor((right - left) / 60))) : x.ticks(Math.max(2, Math.floor((right - left) / 90)));
  const tall = keep(host, width, "rows", view.bars.length) * row;
  const label = named(view.x ?? "", "", view.log ?? false);
  const height = tall + 8 + (label ? 46 : 26);
  const svg = stage(host, width, height);
  stage(host, width, height + axisX(layer(svg, "axis"), x, tall + 6, 0, label, width, ticks));

  const bars = layer(svg, "bars").selectAll<SVGGElement, Bar>("g.bar-row").data(view.bars, (b) => b.id).join((enter) => {
    const g = enter.append("g").attr("class", "bar-row");
    g.append("text").attr("class", "bar-name");
    g.append("rect").attr("class", "bar").attr("rx", 2);
    g.append("text").attr("class", "bar-value");
    return g;
  });
  const offset = stacked ? 22 : (ROW - THICK) / 2;
  bars.style("transform", (_, i) => at(0, i * row));
  bars.select(".bar-name").attr("text-anchor", stacked ? "start" : "end").style("transform", stacked ? at(6, 15) : at(left - 12, ROW / 2 + 4.5)).each(function (b) {
    // A name wider than the drawing is broken off with an ellipsis: the page's words have it whole.
    let text = b.label;
    while (text.length > 4 && textWidth(text) > width - 10) text = `${text.slice(0, -2).trimEnd()}…`;
    (this as SVGTextElement).textContent = text;
  });
  const end = (b: Bar): number => Math.max(left + 1, x(b.value));
  bars.select(".bar").attr("y", offset).attr("height", THICK).attr("x", left).style("fill", (b) => colour(b.tone ?? "error")).style("width", (b) => `${end(b) - left}px`);
  bars.select(".bar-value").style("fill", (b) => colour(b.tone ?? "error")).style("transform", (b) => at(end(b) + 8, offset + THICK / 2 + 4.5)).text((b) => b.text);
  layer(svg, "base").selectAll("line").data([0]).join("line").attr("class", "base").attr("x1", left).attr("x2", left).attr("y1", 0).attr("y2", tall + 6);
}
