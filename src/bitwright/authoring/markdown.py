"""Lesson text to HTML: Markdown, formulas set by KaTeX, coloured words, figures, questions and highlighted programs.

The colour of a thing is the same in prose and figure: `:quant[levels]` is an orange word, `$\\tone{quant}{s}$` an
orange symbol. Tones are those of `figures.Tone`.
"""

from __future__ import annotations

import html
import json
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, get_args

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_inline import StateInline
from mdit_py_plugins.dollarmath import dollarmath_plugin
from py_mini_racer import JSEvalException, MiniRacer
from pydantic import Field
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from bitwright.authoring.figures import Part, Text, Tone, read_part
from bitwright.errors import InputError, ResourceError

KATEX = Path(__file__).parents[1] / "studio" / "built" / "katex.js"
TONED = re.compile(rf":({'|'.join(get_args(Tone))})\[([^\]\n]+)\]")


@cache
def _katex() -> MiniRacer:
    if not KATEX.exists():
        fix = "Run `make`, or python scripts/build_web.py"
        raise ResourceError("the studio's pages are not built", where=str(KATEX), fix=fix)
    context = MiniRacer()
    context.eval(KATEX.read_text("utf-8"))
    return context


@cache
def formula(tex: str, display: bool = False) -> str:
    """TeX as HTML and MathML; InputError where KaTeX cannot read it."""
    options = {
        "displayMode": display,
        "throwOnError": True,
        "strict": False,
        "trust": True,  # for \htmlClass, which \tone needs; lessons are our own text
        "macros": {"\\tone": "\\htmlClass{tone-#1}{#2}"},
    }
    try:
        return str(_katex().call("katex.renderToString", tex, options))
    except JSEvalException as error:
        line = next((line for line in str(error).splitlines() if "ParseError" in line), str(error).splitlines()[0])
        raise InputError(f"cannot be set ({line.strip()})", where=f"formula {tex!r}", fix="Correct the TeX") from error


def program(source: str, language: str) -> str:
    """Source text as spans with Pygments' classes, one entry per line; plain text where the language is unknown."""
    try:
        lexer = get_lexer_by_name(language, stripnl=False)
    except ClassNotFound:
        return html.escape(source)
    return highlight(source, lexer, HtmlFormatter(nowrap=True))


def _toned(state: StateInline, silent: bool) -> bool:
    found = TONED.match(state.src, state.pos)
    if not found:
        return False
    if not silent:
        opening = state.push("toned_open", "span", 1)
        opening.attrs = {"class": f"tone-{found[1]}"}
        end = state.posMax
        state.pos, state.posMax = found.start(2), found.end(2)
        state.md.inline.tokenize(state)
        state.posMax = end
        state.push("toned_close", "span", -1)
    state.pos = found.end()
    return True


def plain_text(markdown: str) -> str:
    """Markdown without the colours that only pages show."""
    return TONED.sub(r"\2", markdown)


def _identify(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "section"


class FigureTag(Part):
    """A fence ```figure: `data` names a Figure that `numbers()` returns; `alt` says what it shows in a sentence."""

    kind: Text
    data: Text
    alt: Text
    caption: Text
    title: str = ""


class QuestionTag(Part):
    """A fence ```question: `answer` is the number of the right option, counted from 1; `why` explains it."""

    ask: Text
    options: tuple[Text, ...] = Field(min_length=2)
    answer: int = Field(ge=1)
    why: Text


class Document:
    """One text being rendered; `sections`, `figures` and `questions` are what was met on the way.

    `given` are the payloads of `compile.payload` by name; `where` names the file in errors.
    """

    def __init__(self, given: dict[str, dict[str, Any]] | None = None, where: str = "lesson") -> None:
        self.sections: list[dict[str, str]] = []
        self.questions: list[dict[str, Any]] = []
        self.figures: list[FigureTag] = []
        self._given = given or {}
        self._where = where
        self._markdown = MarkdownIt("commonmark", {"typographer": True, "html": False}).enable(["table", "smartquotes"])
        self._markdown.use(dollarmath_plugin, double_inline=True, allow_digits=False)
        self._markdown.inline.ruler.before("link", "toned", _toned)
        self._markdown.inline.add_terminator_char(":")
        renderer = self._markdown.renderer
        assert isinstance(renderer, RendererHTML)
        rules: dict[str, Any] = renderer.rules
        rules["math_inline"] = lambda tokens, i, *_: formula(tokens[i].content)
        rules["math_inline_double"] = rules["math_block"] = lambda tokens, i, *_: (
            f'<div class="display" tabindex="0" role="group" aria-label="formula">'
            f"{formula(tokens[i].content, True)}</div>"
        )
        rules["fence"] = self._fence

    def render(self, text: str) -> str:
        """The text as HTML. Headings get ids; `figure` and `question` fences become custom elements."""
        tokens = self._markdown.parse(text)
        for i, token in enumerate(tokens):
            if token.type == "heading_open":
                title = "".join(c.content for c in tokens[i + 1].children or () if c.type in ("text", "code_inline"))
                identity = _identify(title)
                token.attrSet("id", identity)
                if token.tag == "h2":
                    self.sections.append({"id": identity, "title": title})
            if token.type == "table_open":
                token.attrSet("class", "table")
                token.attrSet("tabindex", "0")  # a wide one scrolls, also by keyboard
        return str(self._markdown.renderer.render(tokens, self._markdown.options, {}))

    def inline(self, text: str) -> str:
        """One line of Markdown as HTML, without a paragraph around it."""
        return str(self._markdown.renderInline(text))

    def _fence(self, tokens: Any, i: int, *_: Any) -> str:
        language, body = tokens[i].info.strip(), tokens[i].content
        if language in ("figure", "question"):
            where = f"{self._where}: {language} in line {tokens[i].map[0] + 1}"
            try:
                given = tomllib.loads(body)
            except tomllib.TOMLDecodeError as error:
                raise InputError(f"not valid TOML ({error})", where=where, fix="Correct it") from error
            if language == "figure":
                return self._figure(read_part(FigureTag, given, where), where)
            return self._question(read_part(QuestionTag, given, where))
        return f'<pre class="code" tabindex="0"><code>{program(body, language)}</code></pre>\n'

    def _figure(self, tag: FigureTag, where: str) -> str:
        if tag.data not in self._given:
            known = ", ".join(self._given) or "none"
            raise InputError(f"numbers() has no figure {tag.data!r}", where=where, fix=f"It has: {known}")
        payload = self._given[tag.data]
        self.figures.append(tag)
        title = f'<p class="figure-title">{self.inline(tag.title)}</p>' if tag.title else ""
        data = json.dumps(payload["page"], separators=(",", ":")).replace("</", "<\\/")
        return (
            f'<figure class="figure" id="figure-{html.escape(tag.data)}">{title}'
            f'<bw-figure kind="{html.escape(tag.kind)}" name="{html.escape(tag.data)}" alt="{html.escape(tag.alt)}">'
            f'<script type="application/json">{data}</script>{_plain(payload["first"])}</bw-figure>'
            f"<figcaption>{self.inline(tag.caption)}</figcaption></figure>\n"
        )

    def _question(self, tag: QuestionTag) -> str:
        question: dict[str, Any] = {
            "id": f"question-{len(self.questions) + 1}",
            "ask": self.inline(tag.ask),
            "options": [self.inline(option) for option in tag.options],
            "answer": tag.answer,
            "why": self.inline(tag.why),
            "text": {
                "ask": plain_text(tag.ask),
                "options": [plain_text(option) for option in tag.options],
                "why": plain_text(tag.why),
            },
        }
        question["html"] = question_html(question)
        self.questions.append(question)
        return str(question["html"])


def _plain(view: dict[str, Any]) -> str:
    """A view in words, for pages without scripts."""
    facts = "".join(
        f"<div><dt>{html.escape(r['label'])}</dt><dd>{html.escape(r['value'])}</dd></div>"
        for r in view.get("readouts", ())
    )
    return f'<div class="figure-plain"><p>{html.escape(view["say"])}</p><dl class="readouts">{facts}</dl></div>'


def question_html(question: dict[str, Any]) -> str:
    """A question as a form that works by keyboard; the element `bw-question` answers it."""
    choices = ""
    for i, (option, text) in enumerate(zip(question["options"], question["text"]["options"], strict=True), 1):
        # A name made of nothing but a formula is no name to assistive technology: its TeX is.
        name = f' aria-label="{html.escape(text.replace("$", ""))}"' if "katex" in option else ""
        choices += (
            f'<label class="option"><input type="radio" name="{question["id"]}" value="{i}"{name}>'
            f"<span>{option}</span></label>"
        )
    return (
        f'<bw-question id="{question["id"]}" answer="{question["answer"]}"><form><fieldset>'
        f"<legend>{question['ask']}</legend>{choices}</fieldset>"
        f'<p class="question-foot"><button class="button" type="submit">Check</button>'
        f'<span class="verdict" role="status"></span></p></form>'
        f'<div class="why" hidden>{question["why"]}</div></bw-question>\n'
    )
