-- SPDX-License-Identifier: Apache-2.0
-- Snapshots: where their bytes are, and what a host must still let go of.

-- +goose Up
ALTER TABLE templates ADD COLUMN host_id TEXT;

-- Snapshots that no row of templates stands for: one that is being made (from before the host is
-- asked, until not_before), and those that were deleted or overwritten (written by the transaction
-- that took the row away). From not_before on the host is asked to remove them; the row goes when
-- it has.
CREATE TABLE snapshot_removals (
    template_id TEXT PRIMARY KEY,
    host_id     TEXT NOT NULL REFERENCES hosts (id),
    not_before  BIGINT NOT NULL
);
CREATE INDEX snapshot_removals_due ON snapshot_removals (host_id, not_before);

-- +goose Down
DROP TABLE snapshot_removals;
ALTER TABLE templates DROP COLUMN host_id;
