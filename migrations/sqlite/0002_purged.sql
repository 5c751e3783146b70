-- What was purged is still told apart: a keyed hash stays in the place of a text as it does in that of a number, and a plan asks
-- for both.
ALTER TABLE texts ADD COLUMN body_hash TEXT;
