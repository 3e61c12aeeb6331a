"""The shelf of outputs, run directories, and what moves files between them."""
