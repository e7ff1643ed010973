"""PostgreSQL as a child process, from the server programs in a wheel.

Only the wheel's programs are used. Its own way to start a server opens every folder up to `/` for
reading when it runs as root, creates a system user, and listens on a socket only.
"""

from ledger.embedded.server import EmbeddedPostgres, start

__all__ = ["EmbeddedPostgres", "start"]
