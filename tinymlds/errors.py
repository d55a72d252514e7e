"""The errors that users see. The command line prints the message and exits with `code`; nothing else is a traceback."""


class TinymldsError(Exception):
    """Something that the user can put right; the message says how."""

    code = 1


class UsageError(TinymldsError):
    """What was asked for makes no sense, or not for this folder."""

    code = 2


class DatasetError(TinymldsError):
    """A dataset folder is damaged, incomplete, or not a dataset."""
