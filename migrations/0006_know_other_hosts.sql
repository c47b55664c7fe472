-- What hosts that share a backlog have to know of one another.

-- When the worker's process last said that it is there, by the clock of the leases.
ALTER TABLE workers ADD COLUMN seen_at bigint NOT NULL DEFAULT 0;

-- The remote that a run lands on; NULL: it lands in its own repository, where no other host sees it.
ALTER TABLE runs ADD COLUMN push text;

-- How an execution came by the work that another host had begun, in words.
ALTER TABLE attempts ADD COLUMN origin text;

-- Whose turn it is to land on a target. A turn ends by itself; that nobody lands over another is the remote's to refuse.
CREATE TABLE lanes (
    target text NOT NULL PRIMARY KEY,
    holder text NOT NULL,
    until bigint NOT NULL
) /*pg: */ WITHOUT ROWID /*:pg*/;
