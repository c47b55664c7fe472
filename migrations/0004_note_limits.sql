-- Until when the account of an agent is out of its provider's favour: no task of that agent is begun before.

CREATE TABLE limits (
    agent text NOT NULL PRIMARY KEY,
    until bigint NOT NULL,
    reason text NOT NULL CHECK (reason IN ('rate_limited', 'usage_limit')),
    detail text NOT NULL,
    noted_at bigint NOT NULL
);
