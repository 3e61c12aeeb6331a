"""The processes of the platform on one machine, started and watched together."""
