"""How fast drover is, measured beside what it could be at best and beside what else there is."""
