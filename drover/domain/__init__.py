"""The words and laws of drover: pure values and functions, no I/O and no imports from above."""
