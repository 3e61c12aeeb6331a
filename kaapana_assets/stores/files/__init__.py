"""The shelf of outputs, run directories, and the functions that move files between them."""
