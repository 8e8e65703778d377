"""Buri: a mesh VPN a person can run whole."""

__version__ = "0.1.0"
