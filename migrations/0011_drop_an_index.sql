-- What is put aside is found among the executions that are not over, which another index lists, too; each task paid for
-- this one twice.
DROP INDEX attempts_reserved;
