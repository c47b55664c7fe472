"""The operator's repository, the private clones of attempts, and the way of work from one to the other."""
