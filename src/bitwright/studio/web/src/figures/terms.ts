// A table of names, their values now and what they mean; rows keep their places while values change.
import { select } from "d3-selection";
import { colour } from "./svg";
import type { Term } from "./types";

const GREEK: Record<string, string> = {
  alpha: "α", beta: "β", gamma: "γ", delta: "δ", Delta: "Δ", epsilon: "ε", varepsilon: "ε", eta: "η", theta: "θ", lambda: "λ", mu: "μ", pi: "π", rho: "ρ",
  sigma: "σ", Sigma: "Σ", tau: "τ", phi: "φ", omega: "ω", ell: "ℓ", cdot: "·", times: "×", infty: "∞",
};

/** A symbol as it is read: `\hat w_i` as ŵ with a subscript. Plain names stay as they are. */
export function symbol(tex: string): (Node | string)[] {
  const plain = tex.replace(/\$/g, "").replace(/\\(hat|bar|tilde)\s*\{?(\w)\}?/g, "{$1 $2}")
    .replace(/\\(?:mathrm|text|mathbf|operatorname)\s*\{([^}]*)\}/g, "$1").replace(/\\([A-Za-z]+)/g, (whole, name: string) => GREEK[name] ?? whole.slice(1)).replace(/\\[,;! ]/g, " ");
  return plain.split(/([_^](?:\{[^}]*\}|\w)|\{(?:hat|bar|tilde) \w\})/).filter(Boolean).map((piece) => {
    const accent = /^\{(hat|bar|tilde) (\w)\}$/.exec(piece);
    if (accent) {
      const letter = document.createElement("span");
      letter.className = `accent accent-${accent[1]}`;
      letter.textContent = accent[2]!;
      return letter;
    }
    if (!/^[_^]/.test(piece)) return piece;
    const raised = document.createElement(piece[0] === "_" ? "sub" : "sup");
    raised.textContent = piece.slice(1).replace(/^\{|\}$/g, "");
    return raised;
  });
}

/** Draw `terms` into a table; `changed` marks the values that are not what they were. */
export function table(host: HTMLTableElement, terms: Term[], { code = false, head = ["", "", ""] }: { code?: boolean; head?: string[] } = {}): void {
  if (!host.tHead) {
    const row = host.createTHead().insertRow();
    for (const text of head) {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = text;
      row.append(cell);
    }
    host.createTBody();
  }
  const still = host.closest("[data-still]") !== null;
  const rows = select(host.tBodies[0]!).selectAll<HTMLTableRowElement, Term>("tr").data(terms, (t) => t.symbol).join((enter) => {
    const tr = enter.append("tr");
    tr.append("th").attr("scope", "row").attr("class", code ? "symbol code-symbol" : "symbol").each(function (t) {
      this.append(...(code ? [t.symbol] : symbol(t.symbol)));
    });
    tr.append("td").attr("class", "value").append("span");
    tr.append("td").attr("class", "meaning");
    return tr;
  }).order();
  rows.select<HTMLElement>(".symbol").style("color", (t) => colour(t.tone ?? "ink"));
  rows.select<HTMLElement>(".value").style("color", (t) => colour(t.tone ?? "ink")).each(function (t) {
    const value = t.value ?? "";
    const before = this.dataset["value"];
    this.classList.toggle("changed", !still && (before === undefined ? code : before !== value));
    this.dataset["value"] = value;
    this.firstElementChild!.textContent = value;
  });
  rows.select<HTMLElement>(".meaning").text((t) => t.meaning);
}
