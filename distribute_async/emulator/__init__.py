"""The service, locally: an emulator that follows the specification, so that everything runs with no key and no network.

Public: `Emulator`, the constructors in `fault`, and the types `Fault` and `RecordedRequest`. It imports nothing of the
client and answers in plain dicts written from the specification, so that a mistake of the client can't hide in both.
"""

from distribute_async.emulator import _faults as fault
from distribute_async.emulator._emulator import Emulator
from distribute_async.emulator._faults import Fault
from distribute_async.emulator._log import RecordedRequest

__all__ = ["Emulator", "Fault", "RecordedRequest", "fault"]
