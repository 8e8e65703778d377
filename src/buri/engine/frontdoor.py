"""The front door by the engine's binary: frontport.py's structs to plain values and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from buri.core.addresses import AddrPort
from buri.core.bindfault import bind_fault
from buri.core.errors import ConfigError, StateError, SystemFault
from buri.core.keys import NodePublic
from buri.engine import load
from buri.engine.frontport import Certificate, FrontConfig, FrontStats


class NativeFrontDoor:
    """Implements FrontDoor. Raises SystemFault (InUseError, NotPermittedError) or ConfigError when it cannot open."""

    def __init__(self, config: FrontConfig) -> None:
        binary = load()
        certificate = config.certificate
        try:
            self._door = binary.FrontDoor(
                [_plain(address) for address in config.listen],
                [_plain(address) for address in config.stun],
                None if certificate is None else (certificate.chain_pem, certificate.key_pem),
                config.relay_key,
                config.handoff,
            )
        except ValueError as error:
            raise ConfigError(f"The listener's TLS cannot be set up: {error}.") from error
        except OSError as error:
            raise _fault(error, config) from error

    def listening(self) -> tuple[AddrPort, ...]:
        return _addresses(self._door.listening())

    def stun_listening(self) -> tuple[AddrPort, ...]:
        return _addresses(self._door.stun_listening())

    def set_certificate(self, certificate: Certificate) -> None:
        try:
            self._door.set_certificate(certificate.chain_pem, certificate.key_pem)
        except ValueError as error:
            raise ConfigError(f"The certificate stays as it was: {error}.") from error

    def admit_all(self) -> None:
        self._door.admit_all()

    def admit(self, keys: Sequence[NodePublic]) -> None:
        self._door.admit([key.raw for key in keys])

    def stats(self) -> FrontStats:
        try:
            counters, clients = self._door.stats()
        except RuntimeError as error:
            raise StateError("The front door has stopped.") from error
        return FrontStats(dict(counters), tuple(NodePublic(raw) for raw in clients))

    def close(self) -> None:
        self._door.close()


def _plain(address: AddrPort) -> tuple[str, int]:
    return str(address.address), address.port


def _addresses(plain: Iterable[tuple[str, int]]) -> tuple[AddrPort, ...]:
    return tuple(AddrPort(ip_address(host), port) for host, port in plain)


def _fault(error: OSError, config: FrontConfig) -> SystemFault:
    """The door tells the address that it could not have as the error's file name."""
    flag = "--stun" if error.filename in {str(address) for address in config.stun} else "--listen"
    return bind_fault(error, error.filename or "the public addresses", flag)
