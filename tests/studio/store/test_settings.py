"""Settings of a profile, the same on both engines."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from bitwright.studio.store import learners, schema, settings
from bitwright.studio.store.database import Database
from bitwright.studio.store.settings import Settings


def test_settings_have_defaults_and_come_back(database: Database, you: int) -> None:
    assert settings.load(database, you) == Settings(theme="auto", motion="auto", difficulty=True, streak=True)
    chosen = Settings(theme="dark", motion="reduced", difficulty=False, streak=False)
    settings.save(database, you, chosen)
    assert settings.load(database, you) == chosen
    assert settings.load(database, learners.add(database, "Ada").id) == Settings()


def test_settings_cannot_be_changed_or_be_anything() -> None:
    with pytest.raises(ValidationError):
        Settings().theme = "dark"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Settings.model_validate({"theme": "pink"})
    with pytest.raises(ValidationError):
        Settings.model_validate({"colour": "dark"})


def test_settings_of_another_version_keep_what_fits(database: Database, you: int) -> None:
    kept = {"theme": "sepia", "motion": "reduced", "sound": "loud"}
    with database.begin() as connection:
        connection.execute(sa.update(schema.learners).values(settings=kept))
    assert settings.load(database, you) == Settings(motion="reduced")
