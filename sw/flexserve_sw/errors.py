"""The one error class for what a user can cause and mend."""


class UserError(Exception):
    """Something the user asked for cannot be done. The message is one sentence: what was wrong and what to do."""
