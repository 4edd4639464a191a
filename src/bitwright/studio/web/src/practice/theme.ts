// How the editor looks: our tokens, so that it is light or dark as the page is.
import { HighlightStyle, syntaxHighlighting } from "@codemirror/language";
import { EditorView } from "@codemirror/view";
import { tags as t } from "@lezer/highlight";

const look = EditorView.theme({
  "&": { height: "100%", backgroundColor: "var(--bg)", color: "var(--ink)", fontSize: "14px", borderRadius: "inherit" },
  "&.cm-focused": { outline: "none" },
  ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "1.55", fontVariantLigatures: "none" },
  ".cm-content": { caretColor: "var(--accent)", padding: "var(--s1) 0" },
  ".cm-line": { padding: "0 var(--s3) 0 var(--s2)" },
  ".cm-cursor": { borderLeftColor: "var(--accent)", borderLeftWidth: "2px" },
  ".cm-gutters": { backgroundColor: "var(--bg)", color: "var(--ink-3)", border: "0" },
  ".cm-lineNumbers .cm-gutterElement": { padding: "0 2px 0 var(--s2)", minWidth: "1.9em" },
  ".cm-activeLine": { backgroundColor: "color-mix(in srgb, var(--accent) 7%, transparent)" },
  ".cm-activeLineGutter": { backgroundColor: "color-mix(in srgb, var(--accent) 7%, var(--bg))", color: "var(--ink-2)" },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground": { backgroundColor: "color-mix(in srgb, var(--accent) 24%, transparent)" },
  "&.cm-focused .cm-matchingBracket": { backgroundColor: "transparent", outline: "1px solid var(--line-strong)" },
  "&.cm-focused .cm-nonmatchingBracket": { backgroundColor: "transparent", outline: "1px solid var(--d-error)" },
  ".pb-fault": { backgroundColor: "color-mix(in srgb, var(--d-error) 14%, transparent)", boxShadow: "inset 3px 0 0 var(--d-error)" },
  ".cm-tooltip": { border: "1px solid var(--line)", borderRadius: "var(--r-sm)", backgroundColor: "var(--surface)", boxShadow: "var(--shadow-2)", overflow: "hidden" },
  ".cm-tooltip-autocomplete > ul": { fontFamily: "var(--mono)" },
  ".cm-tooltip-autocomplete > ul > li[aria-selected]": { backgroundColor: "var(--accent-soft)", color: "var(--ink)" },
  ".cm-completionMatchedText": { textDecoration: "none", fontWeight: "700" },
});

const colours = HighlightStyle.define([
  { tag: [t.keyword, t.operatorKeyword, t.controlKeyword, t.definitionKeyword, t.moduleKeyword], color: "var(--d-error)" },
  { tag: [t.number, t.bool, t.null], color: "var(--d-quant)" },
  { tag: [t.string, t.special(t.string), t.docString], color: "var(--d-good)" },
  { tag: [t.function(t.definition(t.variableName)), t.definition(t.className)], color: "var(--d-float)", fontWeight: "700" },
  { tag: [t.meta, t.annotation], color: "var(--d-float)" },
  { tag: t.comment, color: "var(--ink-3)", fontStyle: "italic" },
  { tag: t.invalid, color: "var(--d-error)", textDecoration: "underline" },
]);

export const theme = [look, syntaxHighlighting(colours)];
