"""`python -m layerwright`: the command line."""

from layerwright.flows.command_line.main import main

main()
