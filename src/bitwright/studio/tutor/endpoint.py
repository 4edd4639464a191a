"""The server that a learner has named for the tutor: any that speaks OpenAI's chat completions. None until then.

The key is kept in the learner's settings; it goes to the named address, and never to a page, a log or an export.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sa

from bitwright.errors import InputError
from bitwright.studio.store.database import Database
from bitwright.studio.store.schema import learners

NAME = "tutor"
"""Under which it is kept among a learner's settings."""


@dataclass(frozen=True)
class Endpoint:
    """A server: its address up to /v1, a model's name, and a key where it asks for one."""

    address: str
    model: str
    key: str = field(default="", repr=False)


def load(db: Database, learner: int) -> Endpoint | None:
    """The server that a learner has named."""
    with db.read() as connection:
        kept = connection.scalar(sa.select(learners.c.settings).where(learners.c.id == learner))
    found = (kept or {}).get(NAME)
    try:
        return Endpoint(str(found["address"]), str(found["model"]), str(found["key"])) if found else None
    except (KeyError, TypeError):
        return None


def save(db: Database, learner: int, address: str, model: str, key: str = "", forget: bool = False) -> Endpoint | None:
    """Name a server; an empty address names none. An empty key keeps the one that is there, for the same address
    alone. InputError says what does not fit.
    """
    made = endpoint(address, model, key) if address.strip() else None
    with db.begin() as connection:
        mine = learners.c.id == learner
        row = connection.execute(sa.select(learners.c.settings).where(mine)).first()
        if row is None:
            raise InputError("there is no such profile any more", where="profile", fix="Choose one in Settings")
        kept: dict[str, Any] = dict(row.settings or {})
        before = kept.pop(NAME, None) or {}
        if made and not made.key and not forget and before.get("address") == made.address:
            made = Endpoint(made.address, made.model, str(before.get("key", "")))
        if made:
            kept[NAME] = {"address": made.address, "model": made.model, "key": made.key}
        connection.execute(sa.update(learners).where(mine).values(settings=kept))
    return made


def endpoint(address: str, model: str, key: str = "") -> Endpoint:
    """A server as somebody typed it. InputError says what does not fit; the key is in no message."""
    address, model, key = address.strip().rstrip("/").removesuffix("/chat/completions"), model.strip(), key.strip()
    fix = "Write it like http://127.0.0.1:11434/v1"
    try:
        parts = urlsplit(address)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or len(address) > 500 or not address.isprintable() or " " in address:
        raise InputError("is not an address that begins with http:// or https://", where="tutor: address", fix=fix)
    if parts.username is not None or parts.query or parts.fragment:
        raise InputError("holds more than an address", where="tutor: address", fix=f"{fix}; the key has its own field")
    if not 0 < len(model) <= 200 or not model.isprintable():
        raise InputError("a model has a name", where="tutor: model", fix="Write it as the server lists it")
    if len(key) > 500 or not key.isascii() or not key.isprintable() or " " in key:
        raise InputError("is not a key", where="tutor: key", fix="Copy it again, without spaces")
    return Endpoint(address, model, key)


def shown(found: Endpoint | None) -> dict[str, Any]:
    """What a problem's page may know: whether there is a tutor, and its model."""
    return {"ready": found is not None, "model": found.model if found else ""}
