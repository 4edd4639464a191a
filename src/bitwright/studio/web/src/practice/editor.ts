// The editor: CodeMirror with Python, our keys, and a line that can be pointed at.
import { autocompletion, closeBrackets, closeBracketsKeymap, completionKeymap } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import { python } from "@codemirror/lang-python";
import { bracketMatching, indentOnInput, indentUnit } from "@codemirror/language";
import { EditorState, StateEffect, StateField } from "@codemirror/state";
import { Decoration, drawSelection, EditorView, highlightActiveLine, highlightActiveLineGutter, keymap, lineNumbers, type DecorationSet } from "@codemirror/view";
import { still } from "./motion";
import { theme } from "./theme";

export interface Editor {
  /** The program as it stands. */
  text: () => string;
  /** Put another program in its place; the editor's undo brings the old one back. */
  replace: (text: string) => void;
  /** Point at a line, from 1, until something is typed; 0 points at none. */
  point: (line: number) => void;
  /** Take the reader to a line. */
  go: (line: number) => void;
  focus: () => void;
  close: () => void;
}

export interface Wishes {
  doc: string;
  /** The id of what says how to leave. */
  help: string;
  changed: () => void;
  run: () => void;
  submit: () => void;
  /** Whether Tab leaves now rather than indents. */
  leaving: (now: boolean) => void;
}

const pointing = StateEffect.define<number>();
const pointed = StateField.define<DecorationSet>({
  create: () => Decoration.none,
  update(marks, change) {
    for (const effect of change.effects) {
      if (!effect.is(pointing)) continue;
      const line = effect.value;
      return line >= 1 && line <= change.state.doc.lines ? Decoration.set(Decoration.line({ class: "pb-fault" }).range(change.state.doc.line(line).from)) : Decoration.none;
    }
    return change.docChanged ? Decoration.none : marks;
  },
  provide: (field) => EditorView.decorations.from(field),
});

export function open(parent: HTMLElement, wishes: Wishes): Editor {
  const { doc, help, changed, run, submit, leaving } = wishes;
  const tab = (view: EditorView, leaves: boolean): void => {
    view.setTabFocusMode(leaves);
    leaving(leaves);
  };
  const done = (act: () => void) => (): boolean => (act(), true);
  const view = new EditorView({
    parent,
    state: EditorState.create({
      doc,
      extensions: [
        keymap.of([{ key: "Mod-Shift-Enter", run: done(submit) }, { key: "Mod-Enter", run: done(run) }]),
        lineNumbers(), highlightActiveLine(), highlightActiveLineGutter(), history(), drawSelection({ cursorBlinkRate: still() ? 0 : 1200 }), indentOnInput(), bracketMatching(), closeBrackets(),
        autocompletion({ activateOnTyping: false }), python(), indentUnit.of("    "), EditorState.tabSize.of(4), pointed, theme,
        keymap.of([...completionKeymap, ...closeBracketsKeymap, ...defaultKeymap, ...historyKeymap, indentWithTab, { key: "Escape", run: (v) => (tab(v, true), true) }]),
        EditorView.contentAttributes.of({ tabindex: "0", "aria-label": "Your code, Python", "aria-describedby": help, autocapitalize: "off", autocorrect: "off", spellcheck: "false" }),
        EditorView.domEventHandlers({
          keydown: (event, v) => {
            if (!["Escape", "Tab", "Shift"].includes(event.key)) tab(v, false);
          },
          blur: (_, v) => tab(v, false),
        }),
        EditorView.updateListener.of((update) => {
          if (update.docChanged) changed();
        }),
      ],
    }),
  });
  const at = (line: number): number => view.state.doc.line(Math.min(Math.max(line, 1), view.state.doc.lines)).from;
  return {
    text: () => view.state.doc.toString(),
    replace: (text) => view.dispatch({ changes: { from: 0, to: view.state.doc.length, insert: text }, selection: { anchor: 0 }, scrollIntoView: true }),
    point: (line) => view.dispatch({ effects: line ? [pointing.of(line), EditorView.scrollIntoView(at(line), { y: "center" })] : pointing.of(0) }),
    go: (line) => {
      view.dispatch({ selection: { anchor: at(line) }, effects: EditorView.scrollIntoView(at(line), { y: "center" }) });
      view.focus();
    },
    focus: () => view.focus(),
    close: () => view.destroy(),
  };
}
