"""What tests of the content share with those of the studio."""

from __future__ import annotations

from tests.studio.browser import compiled  # noqa: F401, a fixture
