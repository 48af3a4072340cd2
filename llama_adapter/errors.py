"""The one exception for wrong input, kept apart so that every layer can raise it and only the command line
catches it.
"""


class UserError(ValueError):
    """The input is wrong, not the program: say what came and what to do instead, in two sentences.

    The command line prints the message without a traceback and exits with code 2.
    """
