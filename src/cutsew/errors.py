"""The one exception that ends in a single line for the user."""


class UserError(Exception):
    """Bad input or a bad setting. The message is one line: it names the file or dotted setting and says what to do.

    The command line prints it without a traceback and exits with status 1.
    """
