"""The folders that images of operators are built from, and building them."""
