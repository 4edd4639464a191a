"""An edition to send: as Markdown, as HTML, and as a mail with both."""

from __future__ import annotations

from email.message import EmailMessage

from bitwright.authoring.library import Library
from bitwright.studio.shell.templates import environment
from bitwright.studio.today.edition import Edition, page_of, problem_of, question_of


def to_markdown(library: Library, chosen: Edition) -> str:
    """An edition as Markdown. Its lessons must be compiled (InputError otherwise)."""
    page, feature = page_of(library, chosen.lesson), library.features[chosen.feature]
    return (
        f"# Today in Bitwright: {chosen.title}\n\n"
        f"## {page['title']}\n\n*{page['lead']}*\n\n{page['opening_text']}\n\n"
        f"Read on: `bitwright studio`, then /learn/{chosen.lesson} ({page['minutes']} minutes)\n\n"
        f"{_problem_text(library, chosen)}{_question_text(library, chosen)}"
        f"## Spotlight: {feature['title']}\n\n{feature['text'].strip()}\n\n    {feature['command']}\n"
    )


def _problem_text(library: Library, chosen: Edition) -> str:
    problem = problem_of(library, chosen)
    if problem is None:
        return ""
    return (
        f"## Problem of the day: {problem['title']}\n\n{problem['text']}\n\n"
        f"Solve it: `bitwright studio`, then /practice/{problem['slug']} ({problem['minutes']} minutes)\n\n"
    )


def _question_text(library: Library, chosen: Edition) -> str:
    question = question_of(library, chosen)
    text = question["text"]
    options = "\n".join(f"{i}. {option}" for i, option in enumerate(text["options"], 1))
    return f"## Question of the day\n\n{text['ask']}\n\n{options}\n\nAnswer: {question['answer']}. {text['why']}\n\n"


def to_html(library: Library, chosen: Edition) -> str:
    """An edition as one HTML page without scripts or files of its own, fit for a mail."""
    page, question = page_of(library, chosen.lesson), question_of(library, chosen)
    return (
        environment()
        .get_template("mail.html")
        .render(
            edition=chosen,
            lesson=page,
            question=question,
            feature=library.features[chosen.feature],
            problem=problem_of(library, chosen),
        )
    )


def to_mail(library: Library, chosen: Edition) -> bytes:
    """An edition as a mail (RFC 5322) with a plain and an HTML part; the sender fills in From and To."""
    mail = EmailMessage()
    mail["Subject"] = f"Today in Bitwright: {page_of(library, chosen.lesson)['title']}"
    mail.set_content(to_markdown(library, chosen))
    mail.add_alternative(to_html(library, chosen), subtype="html")
    return bytes(mail)
