"""The one error a user can cause: what is wrong, where, and what to do, in one line."""


class ConfigError(ValueError):
    """A config, a file or an option that makes no sense; the command prints it and exits with 2."""
