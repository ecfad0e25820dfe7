"""Run by alembic: migrates on the connection that ``backend.tenants.database`` hands over, in its transaction."""

from alembic import context

from backend.tenants.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
