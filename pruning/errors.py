"""What the pruning core refuses, each with the value and the remedy in its message.

PruningError (ValueError)
├── SpecError          a sparsity, scorer, pattern or option that cannot be built
├── DataError          labelled rows that cannot be used; names the file and line
├── ModelError         a model directory that cannot be loaded
├── CacheError         calibration that is missing, stale or damaged
├── DeviceMemoryError  a variant, or a step of a training, that does not fit into the memory of a device
├── HostMemoryError    work that does not fit into the memory of this machine
├── PrecisionError     numbers that this machine, device or model cannot be computed in
├── RecoveryError      training that was not done, or cannot go on
└── StoreError         a variant that cannot be written or read
└── ChecksumError  a stored file whose bytes changed
"""


class PruningError(ValueError):
    """Base of everything that callers can cause and mend."""


class SpecError(PruningError):
    """A request that cannot be built."""


class DataError(PruningError):
    """Labelled rows that cannot be used."""


class ModelError(PruningError):
    """A model directory that cannot be loaded."""


class CacheError(PruningError):
    """Calibration that is missing, stale or damaged."""


class PrecisionError(PruningError):
    """Numbers that this machine, device or model cannot be computed in."""


class RecoveryError(PruningError):
    """Training that was not done, or cannot go on."""


class DeviceMemoryError(PruningError):
    """A variant, or a step of a training, that does not fit into the memory of a device."""


class HostMemoryError(PruningError):
    """Work that does not fit into the memory of this machine."""


class StoreError(PruningError):
    """A variant that cannot be written or read."""


class ChecksumError(StoreError):
    """A stored file whose bytes are not the ones that were written."""
