-- How many tasks a run works on at the same time when that is fewer than it was asked for, and why.

ALTER TABLE runs ADD COLUMN concurrency bigint;

ALTER TABLE runs ADD COLUMN throttle text;

ALTER TABLE runs ADD COLUMN throttled_at bigint;
