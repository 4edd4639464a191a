// Bundles the studio's pages: scripts, styles and fonts into ../built/web with hashed names, and a manifest of those names.
// The old bundle stays until the new one is whole.
// Run by the Python build hook (`make` or pip), or by hand: npm ci && npm run build.
import * as esbuild from "esbuild";
import fs from "node:fs/promises";
import path from "node:path";
import { compile } from "svelte/compiler";
import subsetFont from "subset-font";

const final = path.resolve("../built");
const out = `${final}.partial`;
const work = path.resolve(".fonts");

/** Characters and features of our own text; anything else falls back to a system font. */
const ascii = Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i)).join("");
const text = ascii + "\u00a0–—‘’“”…·•×÷±≤≥≈≠−→←↑↓↔°²³µ§©½¼π∞√∑∏∂Δλσμεαβγθφωéïöüč⌘⏎⇧▶◀";
const weights = { variationAxes: { wght: { min: 400, max: 700 } }, keepFeatures: ["ccmp", "kern", "liga", "mark", "tnum"] };
const fonts = {
  inter: ["@fontsource-variable/inter/files/inter-latin-wght-normal.woff2", weights],
  serif: ["@fontsource-variable/source-serif-4/files/source-serif-4-latin-wght-normal.woff2", weights],
  "serif-italic": ["@fontsource-variable/source-serif-4/files/source-serif-4-latin-wght-italic.woff2", { ...weights, variationAxes: { wght: 400 } }],
  // No ligatures: they are half of this font, and code is shown as it is typed.
  mono: ["@fontsource-variable/jetbrains-mono/files/jetbrains-mono-latin-wght-normal.woff2", { ...weights, keepFeatures: [] }],
};
/** What nearly every formula is made of: these come first, and the rest of a KaTeX font only where a page needs it. */
const symbols = ascii + "\u00a0\u200b±×÷·ˆˉ˙˜′‾…−∂∈∏∑√∗∞∣∥≈≠≡≤≥⊤⋅⋯⌈⌉⌊⌋⟨⟩→←∫ℓΔΘΛΣΦΨΩ";
const common = {
  "Main-Regular": symbols,
  "Math-Italic": ascii.replace(/[^A-Za-z/]/g, "") + "αβγδεηθκλμνπρστφωϵϕℓ∂",
  "AMS-Regular": "CENPQRZ",
  "Size1-Regular": " ()[]{}|∑∏∫√⌊⌋⌈⌉\u200b",
  "Size2-Regular": " ()[]{}|∑∏∫√⌊⌋⌈⌉\u200b",
};

/** Svelte components become custom elements; their styles come from the tokens and classes of the main style sheet. */
const svelte = {
  name: "svelte",
  setup(build) {
    build.onLoad({ filter: /\.svelte$/ }, async ({ path: filename }) => {
      const source = await fs.readFile(filename, "utf8");
      const { js, warnings } = compile(source, { filename, css: "injected", customElement: false, runes: true });
      return { contents: js.code, loader: "ts", warnings: warnings.map((w) => ({ text: w.message })) };
    });
  },
};

await fs.rm(out, { recursive: true, force: true });
await fs.mkdir(work, { recursive: true });
await fs.mkdir(out, { recursive: true });

for (const [name, [file, options]] of Object.entries(fonts)) {
  const whole = await fs.readFile(path.join("node_modules", file));
  await fs.writeFile(path.join(work, `${name}.woff2`), await subsetFont(whole, text, { targetFormat: "woff2", ...options }));
}

// KaTeX's style sheet names each font in three formats; every browser of today reads the first. A second face with the
// common characters of a font follows the first one and so comes before it for those.
const katex = path.resolve("node_modules/katex/dist");
let sheet = (await fs.readFile(path.join(katex, "katex.min.css"), "utf8"))
  .replace(/,url\([^)]*\.(?:woff|ttf)\) format\("[a-z]+"\)/g, "")
  .replaceAll("font-display:block", "font-display:swap");
for (const [name, characters] of Object.entries(common)) {
  const file = `KaTeX_${name}.woff2`;
  const whole = await fs.readFile(path.join(katex, "fonts", file));
  await fs.writeFile(path.join(work, file), await subsetFont(whole, characters, { targetFormat: "woff2" }));
  const range = Array.from(characters, (character) => `U+${character.codePointAt(0).toString(16)}`).join();
  const face = new RegExp(`@font-face{[^}]*fonts/${file}[^}]*}`);
  if (!face.test(sheet)) throw new Error(`katex.min.css has no face for ${file}: see the table of common characters`);
  sheet = sheet.replace(face, (rule) => rule + rule.replace(`fonts/${file}`, path.join(work, file)).replace("}", `;unicode-range:${range}}`));
}
sheet = sheet.replaceAll("url(fonts/", `url(${katex}/fonts/`);
await fs.writeFile(path.join(work, "katex.css"), sheet);
await fs.copyFile(path.join(katex, "katex.min.js"), path.join(out, "katex.js"));

const result = await esbuild.build({
  entryPoints: ["src/main.ts", "src/workbench.ts", "src/practice.ts", "src/styles/main.css", "src/styles/practice.css", { in: path.join(work, "katex.css"), out: "katex" }],
  outdir: path.join(out, "web"),
  entryNames: "[name]-[hash]",
  chunkNames: "[name]-[hash]",
  assetNames: "[name]-[hash]",
  bundle: true,
  splitting: true,
  format: "esm",
  target: "es2022",
  minify: true,
  metafile: true,
  conditions: ["browser", "svelte"],
  loader: { ".woff2": "file" },
  legalComments: "linked",
  plugins: [svelte],
});

const manifest = {};
for (const [file, { entryPoint }] of Object.entries(result.metafile.outputs)) {
  const name = path.basename(file);
  if (entryPoint) manifest[path.basename(entryPoint)] = name;
  else if (/\.woff2$/.test(name) && !name.startsWith("KaTeX")) manifest[name.replace(/-[A-Z0-9]{8}\./, ".")] = name;
}
await fs.writeFile(path.join(out, "manifest.json"), JSON.stringify(manifest, null, 1));
await fs.rm(final, { recursive: true, force: true });
await fs.rename(out, final);
