-- What a function that does a task's work is given, and what it came to: JSON documents.

ALTER TABLE tasks ADD COLUMN input text;

ALTER TABLE tasks ADD COLUMN result text;
