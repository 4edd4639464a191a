"""What Alembic runs to bring a database up to date, in the transaction that `versions.bring_up_to_date` has begun."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
