-- Ten ports in a row from first_port belong to one execution on one host until it is closed.

CREATE TABLE port_leases (
    host text NOT NULL,
    first_port bigint NOT NULL,
    task_id text NOT NULL REFERENCES tasks (id),
    fence bigint NOT NULL,
    leased_at bigint NOT NULL,
    PRIMARY KEY (host, first_port)
);
CREATE INDEX port_leases_by_claim ON port_leases (task_id, fence);
