"""Decides; the front door: `from router import Router`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from router.dispatch import Router as Router

__all__ = ["Router"]


def __getattr__(name: str) -> Any:
    # On demand, so that the command line starts without what it does not use.
    if name == "Router":
        from router.dispatch import Router

        return Router
    raise AttributeError(f"module 'router' has no attribute {name!r}")
