"""One driver for each kind of coding agent, all behind one Protocol."""
