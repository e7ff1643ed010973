-- The policy in force.

CREATE VIEW ledger.current_policy AS
SELECT
    p.events,
    make_interval(secs => p.retry_interval) AS retry_interval,
    p.retry_count,
    make_interval(
        secs => p.retry_count * p.retry_interval + (p.retry_count + 1) * p.retry_timeout
    ) AS retry_budget,
    make_interval(secs => p.ask_again_after) AS ask_again_after
FROM ledger.policy p
ORDER BY p.policy_id DESC
LIMIT 1;

COMMENT ON VIEW ledger.current_policy IS
    'The policy in force. retry_budget: how long after its first attempt the sender gives up.';
