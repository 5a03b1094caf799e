"""Remembers: jobs, attempts, results, batches and every cent."""
