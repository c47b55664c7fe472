-- name: lease_ports
-- No row changed: the block is somebody else's.
INSERT INTO port_leases (host, first_port, task_id, fence, leased_at)
VALUES (:host, :first_port, :task_id, :fence, :now) ON CONFLICT (host, first_port) DO NOTHING;

-- name: free_ports
DELETE FROM port_leases WHERE task_id = :task_id AND fence = :fence;

-- name: list_leased_ports
SELECT first_port FROM port_leases WHERE host = :host;

-- name: free_lost_ports
-- Of executions that nobody holds any more. Called when none of their processes can be alive on the host.
DELETE FROM port_leases
 WHERE host = :host
   AND NOT EXISTS (SELECT 1 FROM tasks t
                    WHERE t.id = port_leases.task_id AND t.fence = port_leases.fence AND t.state = 'running');
