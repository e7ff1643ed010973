"""PostgreSQL as a child process, from the server programs that a wheel carries.

The wheel's own way to start its server is not used: as root it opens every folder up to `/` for
reading, creates a system user, and listens on a socket alone. The wheel is a set of programs here.
"""

from ledger.embedded.server import EmbeddedPostgres, start

__all__ = ["EmbeddedPostgres", "start"]
