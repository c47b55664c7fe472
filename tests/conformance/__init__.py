"""The conformance table: what drover makes of each real agent CLI when something happens to it.

``make conformance`` runs every agent of the cache through every event, against the scripted model and without
a network, prints the table and writes it to docs/reference/conformance.md. A cell is one life as a user would
see it: the command line, a repository, the agent's own program. Only the model is a script.
"""
