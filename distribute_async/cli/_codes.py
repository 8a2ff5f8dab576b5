"""The exit codes. Used by all commands; imports nothing."""

OK, TROUBLE, USAGE, FAILED, TIMED_OUT = range(5)
UNCERTAIN = 6
SIGNALLED = 128  # and the signal's number: what a shell reports for a program that a signal ended
INTERRUPTED = SIGNALLED + 2
PIPE_CLOSED = SIGNALLED + 13
