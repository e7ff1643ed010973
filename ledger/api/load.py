"""What a worker that serves the API is busy with, for `/metrics`."""

from ledger.api.change_feed import ChangeFeed
from ledger.api.services import Services
from ledger.metrics import POOL, POOL_WAITING, STREAMS


def measure_load(services: Services, feed: ChangeFeed) -> None:
    """Measure streams and the pool of connections."""
    STREAMS.set(feed.streams)
    pool = services.pool.get_stats()
    idle = pool.get("pool_available", 0)
    POOL.labels("idle").set(idle)
    POOL.labels("used").set(pool.get("pool_size", 0) - idle)
    POOL_WAITING.set(pool.get("requests_waiting", 0))
