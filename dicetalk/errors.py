"""The one exception type for mistakes a user can fix."""


class DicetalkError(Exception):
    """A problem the user can act on.

    The message says what was found, what was expected, and which file or `params.yaml` key to change.
    """
