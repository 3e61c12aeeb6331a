"""The way of a series from the network to an asset: receiver, spool, sensor, ingest assets."""
