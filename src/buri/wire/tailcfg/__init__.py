"""Tailscale's control-plane JSON as msgspec structs, one noun a file."""
