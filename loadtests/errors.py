"""What can go wrong with a load test itself; a service that answers badly is a result, not an error."""


class LoadTestError(Exception):
    """The test cannot run or cannot go on; the message is for the person at the terminal."""


class TargetError(LoadTestError):
    """The URL is malformed, does not resolve, or is not loopback and no flag allows that."""


class AdminError(LoadTestError):
    """The admin API refused, or answered something that it does not promise."""
