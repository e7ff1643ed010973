"""The schema's version that the code needs is the one that the migrations make."""

from alembic.config import Config
from alembic.script import ScriptDirectory

from ledger import schema
from tests.support.server import ROOT


def test_the_version_in_the_code_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    assert ScriptDirectory.from_config(config).get_current_head() == schema.SCHEMA_VERSION
