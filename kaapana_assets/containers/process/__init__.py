"""The runner that launches operators as processes of this machine, in environments made from their Dockerfiles."""
