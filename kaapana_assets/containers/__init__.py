"""The contract that operator images see, and the runners that launch them."""
