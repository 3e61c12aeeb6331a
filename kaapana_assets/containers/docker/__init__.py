"""The runner that launches operators as containers of a Docker or Podman engine."""
