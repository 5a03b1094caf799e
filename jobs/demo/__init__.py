"""The demo's requests: one that a person watches, a few that are wanted at once, a night's worth that is not."""
