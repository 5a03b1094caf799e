"""An OpenAI- and Anthropic-compatible server over loopback, with a bill of its own and fault drills."""
