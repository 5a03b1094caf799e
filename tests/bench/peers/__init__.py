"""The batch lane and live bulk beside the clients that others use, each from its own package: `make bench-peers`."""
