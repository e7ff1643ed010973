"""URLs of databases, made from those of others."""

from urllib.parse import urlsplit, urlunsplit


def database_of(server: str, name: str) -> str:
    """Give the URL of another database of the server."""
    return urlunsplit(urlsplit(server)._replace(path=f"/{name}"))


def server_at(url: str, host: str, port: int) -> str:
    """Give the URL of the same database on another server, with the same login."""
    parts = urlsplit(url)
    login, _, _ = parts.netloc.rpartition("@")
    place = f"{host}:{port}"
    return urlunsplit(parts._replace(netloc=f"{login}@{place}" if login else place))
