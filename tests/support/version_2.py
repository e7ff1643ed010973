"""State as version 2 of the fold made it, with a table of reports."""

TO_VERSION_2 = """
CREATE TABLE state.reports AS
SELECT lab_id, bill_id, test_id, position, is_completed, integrator_id, report FROM state.report;
DROP VIEW state.report;
ALTER TABLE state.reports RENAME TO report;
ALTER TABLE state.bill DROP COLUMN test_ids, DROP COLUMN completed;
UPDATE state.checkpoint SET fold_version = 2;
"""
"""Makes that of the state that is there."""
