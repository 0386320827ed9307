"""The registry and the checkpoint of the registry's own tests."""

from register.conftest import case, make_case

__all__ = ["case", "make_case"]
