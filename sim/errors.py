"""The one error of everything that is read: configs, job files, device strings, presets."""


class ConfigError(ValueError):
    """What was read makes no sense; the message is one line that says where and what to do.

    The command line prints it after 'error: ' and exits with code 2.
    """


def shown(value: object) -> str:
    """A value as a message quotes it: on one line, and cut short if it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:56]} ...'
