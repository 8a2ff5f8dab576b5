"""`python -m distribute_async.cli`: the command, where its script is not on the path."""

from distribute_async.cli import main

main()
