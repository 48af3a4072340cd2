"""The one exception for wrong input: every layer may raise it, only the command line catches it."""


class UserError(ValueError):
    """The input is wrong, not the program: say what came and what to do instead, in two sentences.

    The command line prints the message without a traceback and exits with code 2.
    """
