"""The page and the gateway, over HTTP."""
