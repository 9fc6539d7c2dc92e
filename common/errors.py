"""The errors that a user can act on.

Everything raised as a `ReattendError` is shown to the user as one sentence, without a traceback: it names the field, the
value and the remedy. A traceback is for bugs.
"""


class ReattendError(Exception):
    """Base of all errors that are the user's to mend. The message is complete: what, where, and what to do."""


class InputError(ReattendError, ValueError):
    """A function was called with a wrong shape, dtype, device or value."""


class ConfigError(ReattendError):
    """A configuration file has unknown keys, wrong types or contradictory values. Lists all of them at once."""


class DataError(ReattendError):
    """Data or weights are missing, corrupt, or cannot be stored."""


class MissingHardwareError(ReattendError):
    """The work needs a device that this machine lacks."""
