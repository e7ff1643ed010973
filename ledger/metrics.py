"""What is counted, for Prometheus. Counted a batch at a time, so that counting costs nothing."""

from prometheus_client import Counter, Histogram

DELIVERIES = Counter(
    "ledger_deliveries", "Webhook deliveries answered with 200, by outcome.", ["outcome"]
)
REFUSED = Counter(
    "ledger_deliveries_refused", "Webhook deliveries not stored, by HTTP status.", ["status"]
)
LANE_FAILURES = Counter("ledger_lane_failures", "Deliveries that the database did not store.")
BATCHES = Histogram(
    "ledger_lane_batch_size",
    "Deliveries in one transaction of the lane.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
)
