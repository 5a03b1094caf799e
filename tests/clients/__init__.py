"""Clients that nobody here wrote, unmodified, in environments of their own, before the gateway: `make test-clients`."""
