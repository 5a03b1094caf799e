"""OpenTelemetry: spans and metrics by its conventions for generative AI, where `shunter[otel]` is installed."""
