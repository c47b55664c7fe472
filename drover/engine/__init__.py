"""What happens, in order: the life of a task, the workers that live it, and what cleans up after them."""
